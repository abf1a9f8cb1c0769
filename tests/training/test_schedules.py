"""Schedules against torch's own schedulers and closed forms."""

import math
from collections.abc import Callable

import pytest
import torch
from torch.optim import SGD
from torch.optim.lr_scheduler import CosineAnnealingLR, LinearLR, LRScheduler, SequentialLR, StepLR

from cifar.base.errors import UserError
from cifar.training.schedules import Constant, Cosine, Linear, Schedule, Step, factor_until, group_factors


def torch_factors(build: Callable[[SGD], LRScheduler], num_steps: int) -> list[float]:
    """Return the learning rate of each step under one of torch's schedulers, for a base of 1."""
    optimizer = SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    scheduler = build(optimizer)
    lrs = []
    for _ in range(num_steps):
        lrs.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return lrs


def test_constant_is_one() -> None:
    factor = Constant().over(total_steps=7, steps_per_epoch=7)
    assert [factor(step) for step in range(7)] == [1.0] * 7


def test_step_is_torchs_step_lr_counted_in_steps() -> None:
    factor = Step(every_epochs=2, factor=1 / 3).over(total_steps=50, steps_per_epoch=5)
    expected = torch_factors(lambda optimizer: StepLR(optimizer, step_size=10, gamma=1 / 3), 50)
    assert [factor(step) for step in range(50)] == pytest.approx(expected, rel=1e-12)


def test_step_takes_a_fraction_of_an_epoch() -> None:
    factor = Step(every_epochs=0.5, factor=0.1).over(total_steps=10, steps_per_epoch=10)
    assert [factor(step) for step in (0, 4, 5, 9)] == pytest.approx([1, 1, 0.1, 0.1])
    shortest = Step(every_epochs=1e-9, factor=0.5).over(total_steps=3, steps_per_epoch=1)
    assert [shortest(step) for step in range(3)] == [1, 0.5, 0.25]


def test_the_reports_step_divides_by_three_after_twenty_epochs() -> None:
    factor = Step(every_epochs=20, factor=1 / 3).over(total_steps=500 * 60, steps_per_epoch=500)
    steps = (0, 500 * 20 - 1, 500 * 20, 500 * 40 - 1, 500 * 40)
    assert [factor(step) for step in steps] == pytest.approx([1, 1, 1 / 3, 1 / 3, 1 / 9])


@pytest.mark.parametrize("final_factor", [0.0, 0.1])
def test_cosine_is_torchs_cosine_annealing(final_factor: float) -> None:
    factor = Cosine(final_factor=final_factor).over(total_steps=40, steps_per_epoch=10)
    expected = torch_factors(lambda optimizer: CosineAnnealingLR(optimizer, 40, eta_min=final_factor), 40)
    assert [factor(step) for step in range(40)] == pytest.approx(expected, abs=1e-9)


@pytest.mark.filterwarnings("ignore:The epoch parameter")  # SequentialLR's own, in some releases of torch
def test_cosine_with_warm_up_is_torchs_linear_then_cosine() -> None:
    def build(optimizer: SGD) -> LRScheduler:
        warm_up = LinearLR(optimizer, start_factor=1 / 8, end_factor=1.0, total_iters=7)
        return SequentialLR(optimizer, [warm_up, CosineAnnealingLR(optimizer, 32)], milestones=[8])

    factor = Cosine(warmup_epochs=0.8).over(total_steps=40, steps_per_epoch=10)
    assert [factor(step) for step in range(40)] == pytest.approx(torch_factors(build, 40), abs=1e-9)
    assert factor(0) == 1 / 8
    assert factor(7) == factor(8) == 1
    assert factor(40) == pytest.approx(0, abs=1e-12)
    assert factor(24) == pytest.approx(1 / 2)
    assert factor(16) == pytest.approx((1 + math.cos(math.pi / 4)) / 2)


@pytest.mark.parametrize(
    ("schedule", "arguments", "key"),
    [
        (Step, {"every_epochs": 0, "factor": 0.1}, "every_epochs=0 "),
        (Step, {"every_epochs": math.nan, "factor": 0.1}, "every_epochs=nan "),
        (Step, {"every_epochs": 1, "factor": -1}, "factor=-1 "),
        (Step, {"every_epochs": 1, "factor": 0}, "factor=0 "),
        (Cosine, {"warmup_epochs": -1}, "warmup_epochs=-1 "),
        (Cosine, {"final_factor": 2}, "final_factor=2 "),
        (Step, {"every_epochs": 1, "factor": math.inf}, "factor=inf "),
        (Step, {"every_epochs": "1", "factor": 0.1}, "every_epochs='1' "),
        (Step, {"every_epochs": True, "factor": 0.1}, "every_epochs=True "),
        (Cosine, {"warmup_epochs": math.inf}, "warmup_epochs=inf "),
        (Linear, {"warmup_epochs": math.nan}, "warmup_epochs=nan "),
        (Linear, {"warmup_epochs": 10**400}, "warmup_epochs=10"),
        (Linear, {"warmup_epochs": 1e300}, "warmup_epochs=1e\\+300 "),
        (Linear, {"warmup_epochs": True}, "warmup_epochs=True "),
        (Linear, {"warmup_epochs": None}, "warmup_epochs=None "),
        (Linear, {"final_factor": math.nan}, "final_factor=nan "),
    ],
)
def test_impossible_values_are_named(schedule: type, arguments: dict[str, float], key: str) -> None:
    with pytest.raises(UserError, match=f"schedule.{key}"):
        schedule(**arguments)


def test_a_warm_up_longer_than_the_run_is_refused() -> None:
    with pytest.raises(UserError, match="20 steps, but there are only 10"):
        Cosine(warmup_epochs=2).over(total_steps=10, steps_per_epoch=10)
    assert Cosine(warmup_epochs=1).over(total_steps=10, steps_per_epoch=10)(9) == 1
    assert callable(Cosine(warmup_epochs=2).over(total_steps=0, steps_per_epoch=10))  # epochs=0 evaluates only


@pytest.mark.parametrize("final_factor", [0.0, 0.25])
def test_linear_is_a_straight_line(final_factor: float) -> None:
    def build(optimizer: SGD) -> LRScheduler:
        return LinearLR(optimizer, start_factor=1.0, end_factor=final_factor, total_iters=40)

    factor = Linear(final_factor=final_factor).over(total_steps=40, steps_per_epoch=10)
    assert [factor(step) for step in range(40)] == pytest.approx(torch_factors(build, 40), abs=1e-12)
    warmed = Linear(warmup_epochs=0.5, final_factor=final_factor).over(total_steps=45, steps_per_epoch=10)
    assert [warmed(step) for step in range(5)] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])
    assert [warmed(step + 5) for step in range(40)] == pytest.approx([factor(step) for step in range(40)])


@pytest.mark.parametrize("schedule", [Constant(), Linear(), Cosine(), Step(every_epochs=1, factor=0.5)])
def test_weights_with_epochs_of_their_own_stay_what_they_are_afterwards(schedule: Schedule) -> None:
    alone = schedule.over(total_steps=20, steps_per_epoch=10)
    expected = [*map(alone, range(20)), *[0.0] * 30]
    assert [factor_until(schedule, 2, 10)(step) for step in range(50)] == expected
    groups = [{}, {"epochs": 2}, {"epochs": 9}, {"epochs": 0}]
    whole, own, longer, none = group_factors(schedule, groups, epochs=5, steps_per_epoch=10)
    assert [own(step) for step in range(50)] == expected
    assert [longer(step) for step in range(50)] == [whole(step) for step in range(50)]
    assert not any(none(step) for step in range(50))


def test_a_warm_up_longer_than_a_groups_own_epochs_names_the_group() -> None:
    groups = [{}, {"names": "head.*", "epochs": 1}]
    message = (
        "optimizer.groups: names='head.*' is trained for 1 of the run's 5 epochs, with a schedule of its own. "
        "schedule.warmup_epochs=2 is 8 steps, but there are only 4: shorten it or raise epochs."
    )
    with pytest.raises(UserError) as error:
        group_factors(Cosine(warmup_epochs=2), groups, epochs=5, steps_per_epoch=4)
    assert str(error.value) == message
    with pytest.raises(UserError, match=r"^schedule\.warmup_epochs=9 is 36 steps, but there are only 20: shorten"):
        group_factors(Cosine(warmup_epochs=9), groups, epochs=5, steps_per_epoch=4)


def test_a_rate_that_grows_beyond_all_numbers_is_refused() -> None:
    with pytest.raises(
        UserError, match=r"schedule\.factor=10 is not possible 49 times in one run, as schedule\.every_epo"
    ):
        Step(every_epochs=0.1, factor=10).over(total_steps=50, steps_per_epoch=10)
    assert Step(every_epochs=1, factor=10).over(total_steps=50, steps_per_epoch=10)(49) == 10**4
    assert Step(every_epochs=0.1, factor=10).over(total_steps=39, steps_per_epoch=10)(38) == 10**38
    with pytest.raises(UserError, match=r"schedule\.factor=10 is not possible 39 times"):
        Step(every_epochs=0.1, factor=10).over(total_steps=40, steps_per_epoch=10)


def test_a_period_has_at_least_one_step() -> None:
    factor = Step(every_epochs=0.001, factor=0.5).over(total_steps=10, steps_per_epoch=10)
    assert [factor(step) for step in range(10)] == [0.5**step for step in range(10)]


@pytest.mark.parametrize("final_factor", [0, 1])
@pytest.mark.parametrize("kind", [Cosine, Linear])
def test_the_ends_of_what_is_allowed_are(kind: type[Cosine | Linear], final_factor: float) -> None:
    factor = kind(warmup_epochs=0, final_factor=final_factor).over(total_steps=10, steps_per_epoch=10)
    assert (factor(0), factor(10)) == pytest.approx((1, final_factor))
    assert callable(kind(warmup_epochs=1_000_000).over(total_steps=0, steps_per_epoch=10))
    assert Step(every_epochs=1_000_000, factor=1e-9).over(total_steps=10, steps_per_epoch=10)(9) == 1
