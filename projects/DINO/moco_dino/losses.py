"""Self-distillation with centering and sharpening (Caron et al. 2021, arXiv 2104.14294), as pure functions.

n: images on this rank, J: outputs of the head (K in the paper), V: crops of an image.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from moco_det.modeling.collectives import gather
from moco_det.pretrain.losses import swapped_cross_entropy


def distillation(
    student: Sequence[Tensor],
    teacher: Sequence[Tensor],
    center: Tensor,
    student_temperature: float,
    teacher_temperature: float,
) -> Tensor:
    """The mean over pairs (global crop by the teacher, another crop by the student) of H(P_t, P_s).

    H is the cross-entropy: equations 1 to 3; the teacher's outputs are centered and sharpened (section 3.1).

    Args:
        student: V tensors (n, J), the global crops first.
        teacher: a tensor (n, J) for each global crop.
        center: (J,) that is subtracted from the teacher's outputs.
        student_temperature, teacher_temperature: > 0.

    Returns:
        a scalar, the mean over images too.
    """
    targets = [F.softmax((output.detach() - center) / teacher_temperature, dim=1) for output in teacher]
    predictions = [F.log_softmax(output / student_temperature, dim=1) for output in student]
    return swapped_cross_entropy(targets, predictions)


@torch.no_grad()
def moved_center(center: Tensor, teacher: Sequence[Tensor], momentum: float) -> Tensor:
    """Equation 4: c <- m c + (1 - m) mean of the teacher's outputs for the global batch, all global crops.

    Args:
        center: (J,); teacher: tensors (n, J) of this rank.
    """
    mean = gather(torch.stack([output.mean(dim=0) for output in teacher]).mean(dim=0)[None]).mean(dim=0)  # J
    return center.lerp(mean, 1 - momentum)


def teacher_temperature_at(epoch: int, warmup_epochs: int, start: float, end: float) -> float:
    """Linear from ``start`` in the first epoch to ``end`` in epoch ``warmup_epochs`` (the paper's appendix)."""
    if epoch >= warmup_epochs:
        return end
    return start + (end - start) * epoch / warmup_epochs
