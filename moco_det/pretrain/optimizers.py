"""The optimizer of pre-training: SGD, or LARS for large batches.

LARS is own code of a few lines because the papers that use it here (SimCLR, BYOL, MoCo v3) take the norm of the
gradient *with* weight decay in the trust ratio, and leave out what is normalized already; the maintained
implementation at hand (timm) has the ratio of You et al. and other rules of what is left out.
"""

import torch
from torch import Tensor


def build_optimizer(cfg, groups: list[dict]) -> torch.optim.Optimizer:
    """What SOLVER.OPTIMIZER names.

    Args:
        groups: of parameters, as :meth:`moco_det.pretrain.method.PretrainMethod.parameter_groups` gives them.
    """
    solver = cfg.SOLVER
    settings = {
        "lr": solver.BASE_LR,
        "momentum": solver.MOMENTUM,
        # Of SGD on batch norm and biases too, as in MoCo's official code.
        "weight_decay": solver.WEIGHT_DECAY,
    }
    if solver.OPTIMIZER == "LARS":
        return LARS(groups, **settings, trust=solver.LARS_TRUST)
    return torch.optim.SGD(groups, **settings)


class LARS(torch.optim.Optimizer):
    """SGD with momentum whose step is, in each layer, in proportion to the layer's weights.

    You et al. 2017, "Large Batch Training of Convolutional Networks" (arXiv 1708.03888), Algorithm 1, with the
    weight decay inside the norm: u = g + beta w; v <- m v + eta |w| / |u| u; w <- w - lr v. Biases and the scales
    and shifts of batch norm, which are all the parameters of one dimension, have neither weight decay nor the
    ratio (SimCLR, B.6; BYOL, section 3.3).
    """

    def __init__(
        self, params, lr: float, momentum: float = 0.9, weight_decay: float = 0.0, trust: float = 0.001
    ):
        """
        Args:
            params: as of any optimizer of torch.
            momentum: m; weight_decay: beta; trust: the coefficient eta.
        """
        super().__init__(
            params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay, "trust": trust}
        )

    @torch.no_grad()
    def step(self, closure=None) -> None:
        assert closure is None, "a closure is for optimizers that evaluate a loss again"
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is None:
                    continue
                update = p.grad
                if p.ndim > 1:
                    update = update.add(p, alpha=group["weight_decay"])
                    update = update * trust_ratio(p, update, group["trust"])
                state = self.state[p]
                if "momentum_buffer" not in state:
                    state["momentum_buffer"] = torch.zeros_like(p)
                velocity = state["momentum_buffer"].mul_(group["momentum"]).add_(update)
                p.sub_(group["lr"] * velocity)


def trust_ratio(weight: Tensor, update: Tensor, trust: float) -> Tensor:
    """eta |w| / |u| as a scalar, which stays on the device; 1 where either norm is 0."""
    w, u = torch.linalg.vector_norm(weight), torch.linalg.vector_norm(update)
    return torch.where((w > 0) & (u > 0), trust * w / u, torch.ones_like(w))
