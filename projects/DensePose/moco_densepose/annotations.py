"""Annotated people in training: read from COCO's form, moved with the image, and matched to proposals."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from detectron2.data import transforms as T
from detectron2.structures import BoxMode
from pycocotools import mask as rle

from moco_densepose.charts import BOX_UNITS, MASK_SIZE, MIRRORED_COARSE
from moco_densepose.symmetry import Symmetry


@dataclass(frozen=True)
class PersonTarget:
    """One person's dense pose, in the coordinates of the network's input.

    Attributes:
        box: 4, x0, y0, x1, y1 in pixels: what ``coarse`` spans. A crop does not cut it.
        x, y: K, points in pixels.
        label: K, int64, chart I.
        u, v: K, chart coordinates in [0, 1].
        coarse: MASK_SIZE x MASK_SIZE, uint8, coarse part of each cell of the box.
    """

    box: torch.Tensor
    x: torch.Tensor
    y: torch.Tensor
    label: torch.Tensor
    u: torch.Tensor
    v: torch.Tensor
    coarse: torch.Tensor

    def to(self, *args, **kwargs) -> "PersonTarget":
        return replace(self, **{name: value.to(*args, **kwargs) for name, value in vars(self).items()})


class DensePoseTargets:
    """A list of :class:`PersonTarget`, or None where a person has no dense pose, as a field of ``Instances``."""

    def __init__(self, people: Sequence[PersonTarget | None]):
        self.people = list(people)

    def __len__(self) -> int:
        return len(self.people)

    def __iter__(self):
        return iter(self.people)

    def __getitem__(self, item) -> "DensePoseTargets":
        """Select by a number, slice, list of numbers, or tensor of numbers or booleans."""
        if isinstance(item, int):
            return DensePoseTargets([self.people[item]])
        if isinstance(item, slice):
            return DensePoseTargets(self.people[item])
        chosen = torch.as_tensor(item)
        if chosen.dtype == torch.bool:
            chosen = chosen.nonzero().flatten()
        return DensePoseTargets([self.people[index] for index in chosen.tolist()])

    def to(self, *args, **kwargs) -> "DensePoseTargets":
        return DensePoseTargets([p if p is None else p.to(*args, **kwargs) for p in self.people])


def coarse_mask(masks: Sequence[dict | list]) -> np.ndarray:
    """The coarse parts of a box's cells from dp_masks, run lengths by part; MASK_SIZE x MASK_SIZE, uint8."""
    coarse = np.zeros((MASK_SIZE, MASK_SIZE), dtype=np.uint8)
    for part, encoded in enumerate(masks, start=1):
        if encoded:
            coarse[rle.decode(encoded) > 0] = part
    return coarse


def read_target(annotation: dict, transforms: T.Transform, symmetry: Symmetry | None) -> PersonTarget | None:
    """Read a person's annotation and move it with the image.

    Args:
        annotation: detectron2's form with the keys of dense pose, not yet transformed.
        transforms: what was done to the image: any mix of scaling, cropping and mirroring.
        symmetry: of the body; None where nothing is mirrored.

    Returns:
        None where the person has no dense pose.

    Raises:
        ValueError: the image was turned, which the masks cannot follow; or it was mirrored without ``symmetry``.
    """
    if "dp_masks" not in annotation or "dp_x" not in annotation:
        return None
    x0, y0, x1, y1 = BoxMode.convert(annotation["bbox"], annotation["bbox_mode"], BoxMode.XYXY_ABS)
    corner, right, below = transforms.apply_coords(np.array([[x0, y0], [x1, y0], [x0, y1]], dtype=np.float64))
    if abs(right[1] - corner[1]) > 1e-3 or abs(below[0] - corner[0]) > 1e-3:
        raise ValueError(
            "dense pose annotations follow scaling, cropping and mirroring only, and the image was turned; "
            "leave the rotation out of the augmentations"
        )
    coarse = coarse_mask(annotation["dp_masks"])
    label = np.array(annotation["dp_I"], dtype=np.int64)
    u, v, x, y = (np.array(annotation[f"dp_{name}"], dtype=np.float64) for name in "UVxy")
    places = [x0 + x / BOX_UNITS * (x1 - x0), y0 + y / BOX_UNITS * (y1 - y0)]
    places = transforms.apply_coords(np.stack(places, axis=1))
    flips = right[0] < corner[0], below[1] < corner[1]
    coarse = coarse[:: -1 if flips[1] else 1, :: -1 if flips[0] else 1]
    if flips[0] != flips[1]:  # both together are half a turn, which shows the same side
        if symmetry is None:
            raise ValueError("the image was mirrored, but there is no table of the body's symmetry")
        label, u, v = symmetry.mirror(label, u, v)
        coarse = MIRRORED_COARSE[coarse].astype(np.uint8)
    xs, ys = sorted((corner[0], right[0])), sorted((corner[1], below[1]))
    floats = ([xs[0], ys[0], xs[1], ys[1]], places[:, 0], places[:, 1])
    box, x, y, u, v = (torch.as_tensor(np.asarray(value), dtype=torch.float32) for value in (*floats, u, v))
    return PersonTarget(box, x, y, torch.as_tensor(label), u, v, torch.as_tensor(coarse.copy()))
