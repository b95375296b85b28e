"""The losses of the chart-based head, as upstream computes them.

Letters: N proposals that match a person with dense pose, K annotated points of them all, S the side of the maps.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch.nn import functional as F

from moco_densepose.annotations import PersonTarget
from moco_densepose.output import ChartOutput


@dataclass(frozen=True)
class LossWeights:
    """What each loss is multiplied with."""

    coarse: float
    fine: float
    points: float


def densepose_losses(
    output: ChartOutput, boxes: torch.Tensor, people: Sequence[PersonTarget], weights: LossWeights
) -> dict[str, torch.Tensor]:
    """The four losses, scalars.

    * ``loss_densepose_U``, ``_V``: smooth L1 (beta 1) between the coordinate in the annotated chart and the
      annotation, **summed** over the points in their proposal: so it grows with their number;
    * ``loss_densepose_I``: cross entropy of the chart, mean over the same points;
    * ``loss_densepose_S``: cross entropy of the coarse part, mean over all cells.

    Where no point of a person lies in its proposal, all are 0 and depend on the output: gradients of several
    processes must have the same form.

    Args:
        output: of the N proposals.
        boxes: N x 4, x0, y0, x1, y1 in pixels.
        people: the N people, in the same coordinates.
    """
    point, label, x, y, u, v = _points(people, boxes.device)
    column, row, inside = _in_map(boxes[point], x, y, output.fine.shape[-1])
    inside &= label > 0
    if not inside.any():
        zero = {"U": output.u, "V": output.v, "I": output.fine, "S": output.coarse}
        return {f"loss_densepose_{name}": value.sum() * 0 for name, value in zero.items()}
    point, label, column, row, u, v = (value[inside] for value in (point, label, column, row, u, v))
    own = label[:, None]
    losses = {
        "U": F.smooth_l1_loss(_sample(output.u, point, column, row).gather(1, own)[:, 0], u, reduction="sum"),
        "V": F.smooth_l1_loss(_sample(output.v, point, column, row).gather(1, own)[:, 0], v, reduction="sum"),
        "I": F.cross_entropy(_sample(output.fine, point, column, row), label),
        "S": F.cross_entropy(output.coarse, coarse_targets(boxes, people, *output.coarse.shape[1:3])),
    }
    factors = {"U": weights.points, "V": weights.points, "I": weights.fine, "S": weights.coarse}
    return {f"loss_densepose_{name}": loss * factors[name] for name, loss in losses.items()}


def _points(people: Sequence[PersonTarget], device: torch.device) -> tuple[torch.Tensor, ...]:
    """Number of the person, chart, place in pixels and coordinates of all points; K each."""
    numbers = [torch.full_like(person.label, number) for number, person in enumerate(people)]
    empty = torch.zeros(0, device=device)
    joined = [torch.cat([empty.long(), *numbers]), torch.cat([empty.long(), *(p.label for p in people)])]
    return (*joined, *(torch.cat([empty, *(getattr(p, n) for p in people)]) for n in "xyuv"))


def _in_map(
    boxes: torch.Tensor, x: torch.Tensor, y: torch.Tensor, side: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Column and row of points in the maps of their boxes, and whether they lie in these; K each.

    A box's left edge is column 0, its right edge column S: as upstream has it, although the maps are read half
    a cell beside that when they are enlarged.
    """
    place, size = torch.stack([x, y], dim=1) - boxes[:, :2], boxes[:, 2:] - boxes[:, :2]
    inside = ((place >= 0) & (place < size)).all(dim=1)
    column, row = (place / size.clamp(min=1e-6) * side).unbind(dim=1)
    return column, row, inside


def _sample(
    maps: torch.Tensor, number: torch.Tensor, column: torch.Tensor, row: torch.Tensor
) -> torch.Tensor:
    """Bilinear values of N x C x S x S maps at K places that lie in them; K x C."""
    last = maps.shape[-1] - 1
    column, row = column.clamp(0, last), row.clamp(0, last)
    left, top = column.floor().long(), row.floor().long()
    right, bottom = (left + 1).clamp(max=last), (top + 1).clamp(max=last)
    across, down = (column - left)[:, None], (row - top)[:, None]
    upper = maps[number, :, top, left] * (1 - across) + maps[number, :, top, right] * across
    lower = maps[number, :, bottom, left] * (1 - across) + maps[number, :, bottom, right] * across
    return upper * (1 - down) + lower * down


def coarse_targets(
    boxes: torch.Tensor, people: Sequence[PersonTarget], num_coarse: int, side: int
) -> torch.Tensor:
    """Coarse part of each cell of N proposals' maps, N x S x S, int64; background outside the person's box.

    Args:
        num_coarse: 2 joins all parts to one.
        side: S.
    """
    coarse = torch.stack([person.coarse for person in people])  # N x 256 x 256
    owned = torch.stack([person.box for person in people])
    cells = coarse.shape[-1]
    steps = torch.arange(side, device=boxes.device) / side
    # The nearest of cells whose first and last middle stand for the box's edges, as upstream samples (grid_sample
    # with align_corners).
    places = [
        (boxes[:, axis, None] + steps * (boxes[:, axis + 2] - boxes[:, axis])[:, None] - owned[:, axis, None])
        / (owned[:, axis + 2] - owned[:, axis]).clamp(min=1e-6)[:, None]
        * (cells - 1)
        for axis in (0, 1)
    ]
    column, row = (place.round().long() for place in places)  # N x S
    valid = [(index >= 0) & (index < cells) for index in (column, row)]
    column, row = (index.clamp(0, cells - 1) for index in (column, row))
    number = torch.arange(len(people), device=boxes.device)[:, None, None]
    found = coarse[number, row[:, :, None], column[:, None, :]].long()
    found = found * (valid[1][:, :, None] & valid[0][:, None, :])
    return (found > 0).long() if num_coarse == 2 else found
