"""Sums over steps, and what nothing gives."""

import math

import pytest
import torch

from cifar.training.evaluating.evaluation import Evaluation
from cifar.training.measures.tallies import Step, Totals, Window, all_finite

GOOD = Step(1.0, 5, 2.0, 1.0, 10)


def test_nothing_measured_is_no_number_and_norms_are_means_over_steps() -> None:
    nothing = Totals.of([])
    assert [math.isnan(value) for value in (nothing.loss, nothing.accuracy, nothing.grad_norm)] == [True] * 3
    assert (nothing.note, Totals.of([GOOD], 1).note) == ("", " (1 steps skipped: not finite)")
    assert Totals.of([Step(1.0, 1, 2.0, 1.0, 200), Step(1.0, 1, 5.0, 1.0, 10)]).grad_norm == 3.5
    window = Window()
    assert (window.read(), window.num_images) == ([], 0)
    assert Window(window.state_dict()).read() == []
    assert all_finite([])
    assert [all_finite([torch.ones(2), torch.tensor([1.0, bad])]) for bad in (2.0, math.inf, math.nan)] == [
        True,
        False,
        False,
    ]


ONE = torch.zeros(1)


@pytest.mark.parametrize(("tta_accuracy", "more"), [(None, {}), (0.0, {"test_tta_accuracy": 0.0})])
def test_the_accuracy_with_tta_is_a_fact_where_there_is_one(tta_accuracy: float | None, more: dict[str, float]) -> None:
    found = Evaluation(1.5, 0.25, ONE, ONE, ONE, ONE, tta_accuracy).facts()
    assert found == {"test_loss": 1.5, "test_accuracy": 0.25} | more


def test_sums_are_over_the_steps_and_each_part_is_added() -> None:
    steps = [Step(1.0, 2, 3.0, 1.0, 10), Step(2.0, 4, 5.0, 8.0, 5)]
    assert Totals.of(steps, 7) == Totals(2, 15, 20.0, 6, 8.0, 7)
    totals = Totals(1, 2, 3.0, 4, 5.0, 6)
    totals.include(Totals(10, 20, 30.0, 40, 50.0, 60))
    assert totals == Totals(11, 22, 33.0, 44, 55.0, 66)
    assert Step.of([1.0, 2, 3.0, 4.0], 5) == Step(loss=1.0, num_correct=2, norm=3.0, scale=4.0, num_images=5)
