"""The losses against loops over points and cells, and what they leave out."""

import math

import pytest
import torch

from moco_densepose.annotations import PersonTarget
from moco_densepose.losses import LossWeights, coarse_targets, densepose_losses
from moco_densepose.output import ChartOutput

SIDE = 7
WEIGHTS = LossWeights(coarse=2.0, fine=0.3, points=0.1)
BOXES = torch.tensor([[10.0, 20.0, 50.0, 90.0], [5.0, 5.0, 40.0, 30.0], [0.0, 0.0, 9.0, 20.0]])


@pytest.fixture
def rng():
    return torch.Generator().manual_seed(0)


def person(rng, box, count):
    """Points over the box and a little beyond, as a proposal that does not fit leaves them."""
    x0, y0, x1, y1 = box.tolist()
    x, y = (
        low + (high - low) * (1.3 * torch.rand(count, generator=rng) - 0.15)
        for low, high in ((x0, x1), (y0, y1))
    )
    label = torch.randint(0, 25, (count,), generator=rng)
    u, v = torch.rand(2, count, generator=rng)
    coarse = torch.randint(0, 15, (256, 256), generator=rng).to(torch.uint8)
    return PersonTarget(box + torch.tensor([2.0, -3.0, 4.0, 5.0]), x, y, label, u, v, coarse)


def prediction(rng, count, num_coarse):
    shapes = ((num_coarse,), (25,), (25,), (25,))
    return ChartOutput(*(torch.randn(count, *shape, SIDE, SIDE, generator=rng) for shape in shapes))


def bilinear(grid, column, row):
    last = len(grid) - 1
    column, row = min(column, last), min(row, last)
    left, top = math.floor(column), math.floor(row)
    right, bottom = min(left + 1, last), min(top + 1, last)
    a, b = column - left, row - top
    upper = (1 - a) * grid[top][left] + a * grid[top][right]
    lower = (1 - a) * grid[bottom][left] + a * grid[bottom][right]
    return (1 - b) * upper + b * lower


def by_loops(output, boxes, people, num_coarse):
    smooth = lambda d: 0.5 * d * d if abs(d) < 1 else abs(d) - 0.5  # noqa: E731
    softmax_loss = lambda scores, label: math.log(sum(map(math.exp, scores))) - scores[label]  # noqa: E731
    loss_u = loss_v = 0.0
    charts, cells = [], []
    coarse, fine, u, v = (value.tolist() for value in (output.coarse, output.fine, output.u, output.v))
    for n, target in enumerate(people):
        x0, y0, x1, y1 = boxes[n].tolist()
        for k in range(len(target.x)):
            x, y, label = float(target.x[k]), float(target.y[k]), int(target.label[k])
            if not (x0 <= x < x1 and y0 <= y < y1) or label == 0:
                continue
            place = (x - x0) / (x1 - x0) * SIDE, (y - y0) / (y1 - y0) * SIDE
            loss_u += smooth(bilinear(u[n][label], *place) - float(target.u[k]))
            loss_v += smooth(bilinear(v[n][label], *place) - float(target.v[k]))
            charts.append(softmax_loss([bilinear(fine[n][c], *place) for c in range(25)], label))
        own = target.box.tolist()
        for i in range(SIDE):
            for j in range(SIDE):
                column = (x0 + j / SIDE * (x1 - x0) - own[0]) / (own[2] - own[0]) * 255
                row = (y0 + i / SIDE * (y1 - y0) - own[1]) / (own[3] - own[1]) * 255
                inside = 0 <= round(column) <= 255 and 0 <= round(row) <= 255
                part = int(target.coarse[round(row), round(column)]) if inside else 0
                part = min(part, 1) if num_coarse == 2 else part
                cells.append(softmax_loss([coarse[n][c][i][j] for c in range(num_coarse)], part))
    mean_i, mean_s = sum(charts) / len(charts), sum(cells) / len(cells)
    return {"U": 0.1 * loss_u, "V": 0.1 * loss_v, "I": 0.3 * mean_i, "S": 2 * mean_s}


@pytest.mark.parametrize("num_coarse", [2, 15])
def test_losses_by_loops(rng, num_coarse):
    people = [person(rng, box, count) for box, count in zip(BOXES, (40, 3, 0), strict=True)]
    output = prediction(rng, 3, num_coarse)
    found = densepose_losses(output, BOXES, people, WEIGHTS)
    for name, expected in by_loops(output, BOXES, people, num_coarse).items():
        assert float(found[f"loss_densepose_{name}"]) == pytest.approx(expected, rel=1e-4), name


def test_a_value_by_hand(rng):
    """One point in the middle of a cell of constant maps: |0.75 - 0.25|^2 / 2, and a uniform choice of 25."""
    output = ChartOutput(torch.zeros(1, 2, 4, 4), torch.zeros(1, 25, 4, 4), *torch.zeros(2, 1, 25, 4, 4))
    output.u[:, 3] = 0.75
    point = (
        torch.tensor([5.0]),
        torch.tensor([5.0]),
        torch.tensor([3]),
        torch.tensor([0.25]),
        torch.tensor([0.0]),
    )
    target = PersonTarget(torch.tensor([0.0, 0, 10, 10]), *point, torch.ones(256, 256, dtype=torch.uint8))
    found = densepose_losses(output, torch.tensor([[0.0, 0, 10, 10]]), [target], LossWeights(1, 1, 1))
    assert float(found["loss_densepose_U"]) == pytest.approx(0.125)
    assert float(found["loss_densepose_V"]) == 0
    assert float(found["loss_densepose_I"]) == pytest.approx(math.log(25))
    assert float(found["loss_densepose_S"]) == pytest.approx(math.log(2))


@pytest.mark.parametrize("count", [0, 1])
def test_without_points_every_output_still_has_a_gradient(rng, count):
    output = prediction(rng, count, 2)
    for value in vars(output).values():
        value.requires_grad_()
    people = [person(rng, BOXES[0], 5)] * count
    losses = densepose_losses(output, BOXES[2:][:count], people, WEIGHTS)
    assert sorted(losses) == [f"loss_densepose_{name}" for name in "ISUV"]
    assert all(float(loss) == 0 for loss in losses.values())
    sum(losses.values()).backward()
    assert all(value.grad is not None for value in vars(output).values())


def test_outside_of_the_persons_box_is_background(rng):
    target = person(rng, BOXES[0], 1)
    target.coarse.fill_(3)
    far = target.box + 1000
    assert not coarse_targets(far[None], [target], 15, SIDE).any()
    assert (coarse_targets(target.box[None], [target], 15, SIDE) == 3).all()
    assert (coarse_targets(target.box[None], [target], 2, SIDE) == 1).all()
