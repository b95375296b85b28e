"""Distillation and centering against loops and against lightly."""

import math

import pytest
import torch

from moco_dino.losses import distillation, moved_center, teacher_temperature_at

T_S, T_T = 0.1, 0.04


def normal(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * 0.3


def softmax(values, temperature):
    exponentials = [math.exp(float(value) / temperature) for value in values.detach()]
    return [e / sum(exponentials) for e in exponentials]


def loss_by_loops(student, teacher, center):
    terms = []
    for i, large in enumerate(teacher):
        for v, crop in enumerate(student):
            if v == i:
                continue
            for image in range(len(crop)):
                target = softmax(large[image] - center, T_T)
                prediction = softmax(crop[image], T_S)
                terms.append(-sum(t * math.log(p) for t, p in zip(target, prediction, strict=True)))
    return sum(terms) / len(terms)


def test_the_loss_is_that_of_loops_and_trains_the_student_alone():
    student = [normal(3, 5, seed=seed).requires_grad_() for seed in range(4)]
    teacher = [normal(3, 5, seed=seed).requires_grad_() for seed in (10, 11)]
    center = normal(5, seed=20)
    ours = distillation(student, teacher, center, T_S, T_T)
    assert float(ours.detach()) == pytest.approx(loss_by_loops(student, teacher, center), rel=1e-12)
    ours.backward()
    assert all(output.grad is not None for output in student)
    assert all(output.grad is None for output in teacher)


def test_lightly_has_the_same_values():
    lightly = pytest.importorskip("lightly.loss")
    theirs = lightly.DINOLoss(output_dim=6, center_momentum=0.8).double()
    center = torch.zeros(6, dtype=torch.float64)
    for step in range(3):
        student = [normal(4, 6, seed=10 * step + v) for v in range(4)]
        teacher = [normal(4, 6, seed=100 + 10 * step + v) for v in range(2)]
        expected = float(theirs(teacher, student, teacher_temp=T_T))
        assert float(distillation(student, teacher, center, T_S, T_T)) == pytest.approx(expected, rel=1e-6)
        center = moved_center(center, teacher, 0.8)
        torch.testing.assert_close(center, theirs.center.flatten())


def test_the_temperature_rises_to_its_end():
    values = [teacher_temperature_at(epoch, 3, 0.04, 0.07) for epoch in range(5)]
    assert values == pytest.approx([0.04, 0.05, 0.06, 0.07, 0.07])
    assert teacher_temperature_at(0, 0, 0.04, 0.07) == 0.07
