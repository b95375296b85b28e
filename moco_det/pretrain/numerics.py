"""A loss that is not finite ends the run at its step, and is told apart; clipping of gradients."""

import os
from collections.abc import Callable

import torch
from detectron2.solver.build import maybe_add_gradient_clipping
from detectron2.utils import comm
from torch import Tensor, nn

from moco_det.engine.checkpoint import CONTINUE_LOWER
from moco_det.utils.files import atomic_write


class LossGuard:
    """Tells whether the losses of a step are finite, before the optimizer makes use of them.

    The answer leaves the GPU while the backward pass is still running there, so the GPU never waits.
    """

    def __init__(self):
        self._flags: list[Tensor] = []
        self._copied: torch.cuda.Event | None = None

    def note(self, loss: Tensor) -> None:
        """Remember a loss; comes before its backward pass."""
        finite = loss.detach().isfinite()
        if finite.is_cuda:
            finite = torch.empty((), dtype=torch.bool, pin_memory=True).copy_(finite, non_blocking=True)
            self._copied = torch.cuda.Event()
            self._copied.record()
        self._flags.append(finite)

    def all_finite(self) -> bool:
        """Whether all losses since the last call are finite."""
        if self._copied is not None:
            self._copied.synchronize()
        flags, self._flags = self._flags, []
        return all(map(bool, flags))


def stop_at_loss(trainer, finite: list[bool]) -> None:
    """End the run at a step whose loss is not finite: name the layer, save what reproduces the step.

    Called on all ranks between the backward pass and the optimizer, so the weights are those of the step.
    ``nonfinite_<iteration>.pth`` holds them with the batch of all ranks, the seed and the config; the dictionary,
    the key encoder and the running statistics in it have seen the step's forward pass.

    Args:
        finite: of each rank, whether its loss is.

    Raises:
        FloatingPointError: always.
    """
    rank = finite.index(False)
    names = [name for name in ("query", "key", "small", "index") if name in trainer.batch]
    batches = comm.gather(
        {**{name: trainer.batch[name].cpu() for name in names}, "epoch": trainer.batch["epoch"]}
    )
    state = None
    if comm.is_main_process():
        state = {name: value.cpu().clone() for name, value in trainer.method.state_dict().items()}
    losses = {name: float(value) for name, value in trainer.outputs.items() if name.startswith("loss")}
    layer = first_not_finite(trainer.method, trainer.forward_again)
    losses, layer = comm.all_gather((losses, layer))[rank]
    path = os.path.join(trainer.cfg.OUTPUT_DIR, f"nonfinite_{trainer.iter:07d}.pth")
    if comm.is_main_process():
        saved = {
            **{name: torch.cat([batch[name] for batch in batches]) for name in names},
            **{"epoch": batches[0]["epoch"], "iteration": trainer.iter, "seed": trainer.cfg.SEED},
            **{"rank": rank, "losses": losses, "layer": layer},
            **{"config": trainer.cfg.dump(), "model": state, "optimizer": trainer.optimizer.state_dict()},
        }
        with atomic_write(path) as temporary:
            torch.save(saved, temporary)
    comm.synchronize()  # the first process to leave takes the others down
    found = ", ".join(f"{name} {value}" for name, value in losses.items())
    raise FloatingPointError(
        f"step {trainer.iter + 1}, process {rank}: {found}. {layer}. Saved to {path!r}; {CONTINUE_LOWER}"
    )


def first_not_finite(model: nn.Module, run: Callable[[], None]) -> str:
    """A sentence about the first layer, in the order of the computation, whose output is not finite.

    Args:
        run: makes the model compute.
    """
    found: list[str] = []

    def look(name: str):
        def hook(module, inputs, output):
            if found or _finite(output):
                return
            weights = [key for key, value in module.named_parameters() if not _finite(value)]
            because = ""
            if weights:
                because = f"; its {' and '.join(weights)} {'are' if len(weights) > 1 else 'is'} not finite"
            elif not all(map(_finite, inputs)):
                because = "; its input was not finite either, so what lies before it overflowed"
            found.append(f"The first layer with an output that is not finite is {name}{because}")

        return hook

    leaves = [(name, module) for name, module in model.named_modules() if not any(module.children())]
    handles = [module.register_forward_hook(look(name)) for name, module in leaves]
    try:
        run()
    finally:
        for handle in handles:
            handle.remove()
    return found[0] if found else "The output of every layer is finite, so it is the loss or the dictionary"


def _finite(value: object) -> bool:
    return not isinstance(value, Tensor) or bool(value.isfinite().all())


def with_clipped_gradients(cfg, optimizer: torch.optim.Optimizer) -> torch.optim.Optimizer:
    """The optimizer, which clips gradients before its step if SOLVER.CLIP_GRADIENTS says so, as detectron2 does.

    "value" clips each number, "norm" the norm of each parameter's gradient.
    """
    return maybe_add_gradient_clipping(cfg, optimizer)
