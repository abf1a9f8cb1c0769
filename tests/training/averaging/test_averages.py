"""Averages against torch's own and against closed forms; batch statistics against torch's `update_bn`."""

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn, optim
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn, get_swa_multi_avg_fn, update_bn

from cifar.base.errors import UserError
from cifar.data.augment.crops import CropFlip
from cifar.training.averaging.averages import EMA, LAWA, SWA, Average, NoAverage
from cifar.training.averaging.batch_statistics import recompute
from cifar.training.evaluating.evaluation import evaluate
from cifar.training.state import state_of, take_state
from cifar.training.steps.step import TrainingStep
from cifar.training.trainer import Trainer
from tests.tiny_model import tiny
from tests.training.test_trainer import CPU, losses_of, make_loader, make_trainer

AVERAGES: dict[str, Average] = {
    "ema": EMA(decay=0.9, warmup=False, every_steps=1, statistics="averaged", result="averaged"),
    "ema of every third": EMA(decay=0.5, warmup=False, every_steps=3, statistics="averaged", result="averaged"),
    "warm ema": EMA(decay=0.9, warmup=True, every_steps=2, statistics="recomputed", result="averaged"),
    "swa": SWA(start=0.25, every_epochs=0.4, result="averaged"),
    "lawa": LAWA(count=3, every_epochs=0.2, result="last"),
}


def trajectory(num_steps: int = 20) -> list[dict[str, Tensor]]:
    """Return the weights after each step of the run that `make_trainer` makes, by hand."""
    states: list[dict[str, Tensor]] = []
    trainer, _ = make_trainer(make_loader())
    take = trainer.take_step

    def take_step(inputs: Tensor, labels: Tensor) -> float:
        lr = take(inputs, labels)
        states.append(copy.deepcopy(trainer.model.state_dict()))
        return lr

    trainer.take_step = take_step  # type: ignore[method-assign]
    trainer.fit()
    assert len(states) == num_steps
    return states


def averaged_by_torch(states: list[dict[str, Tensor]], function: Any, use_buffers: bool) -> nn.Module:
    """Return what torch's AveragedModel makes of the states."""
    model = tiny()
    averaged = AveragedModel(model, multi_avg_fn=function, use_buffers=use_buffers)
    for state in states:
        model.load_state_dict(state)
        averaged.update_parameters(model)
    inner: nn.Module = averaged.module
    return inner


def mean_of(states: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    return {key: torch.stack([state[key].double() for state in states]).mean(dim=0).float() for key in states[0]}


def assert_same_parameters(model: nn.Module, state: dict[str, Tensor], exact: bool = False) -> None:
    for name, weight in model.named_parameters():
        tolerance = 0.0 if exact else 1e-6
        torch.testing.assert_close(weight.detach(), state[name], rtol=tolerance, atol=tolerance)


def fitted(average: Average, **options: Any) -> tuple[Trainer, list[dict[str, float]]]:
    """Return a trainer that has trained for two epochs of ten steps."""
    trainer, logged = make_trainer(make_loader(), average=average, **options)
    trainer.fit()
    return trainer, logged


def model_of(trainer: Trainer) -> nn.Module:
    assert trainer.evaluator.average is not None
    return trainer.evaluator.average.model


def test_ema_is_torchs() -> None:
    states = trajectory()
    for name, chosen, decay in (("ema", states, 0.9), ("ema of every third", states[2::3], 0.5)):
        model = model_of(fitted(AVERAGES[name])[0])
        expected = averaged_by_torch(chosen, get_ema_multi_avg_fn(decay), use_buffers=True).state_dict()
        assert_same_parameters(model, expected, exact=True)
        for key, buffer in model.named_buffers():
            if "num_batches" not in key:
                assert torch.equal(buffer, expected[key]), key


def test_a_warm_ema_forgets_its_first_weights_as_the_formula_says() -> None:
    states = trajectory()[1::2]
    expected = {key: value.double() for key, value in states[0].items()}
    for number, state in enumerate(states[1:], start=1):
        decay = min(0.9, (1 + number) / (10 + number))
        expected = {key: decay * value + (1 - decay) * state[key].double() for key, value in expected.items()}
    model = model_of(fitted(AVERAGES["warm ema"])[0])
    assert_same_parameters(model, {key: value.float() for key, value in expected.items()})


def test_swa_is_torchs_mean_from_its_start_on() -> None:
    states = trajectory()[7::4]  # after 5 of 20 steps every fourth, and the last one
    assert len(states) == 4
    model = model_of(fitted(AVERAGES["swa"])[0])
    expected = averaged_by_torch(states, get_swa_multi_avg_fn(), use_buffers=False).state_dict()
    assert_same_parameters(model, expected, exact=True)
    assert_same_parameters(model, mean_of(states))


def test_lawa_is_the_mean_of_the_latest() -> None:
    assert_same_parameters(model_of(fitted(AVERAGES["lawa"])[0]), mean_of(trajectory()[15::2]))
    few, _ = make_trainer(make_loader(), average=LAWA(count=50, every_epochs=0.5, result="averaged"))
    few.fit()
    assert_same_parameters(model_of(few), mean_of(trajectory()[4::5]))  # fewer than it would keep


@pytest.mark.parametrize("name", AVERAGES)
def test_the_training_is_to_the_last_bit_that_without_an_average(name: str) -> None:
    options: dict[str, Any] = {"val_loader": make_loader(30)}
    plain, logged = make_trainer(make_loader(), **options)
    plain.fit()
    trainer, logged_too = fitted(AVERAGES[name], **options)
    assert losses_of(logged) == losses_of(logged_too)
    for key, value in plain.model.state_dict().items():
        assert torch.equal(value, trainer.model.state_dict()[key]), key
    assert torch.equal(torch.get_rng_state(), state_of(plain)["rng"]["cpu"])


def test_statistics_are_those_of_torchs_update_bn() -> None:
    loader = make_loader(95, augment=CropFlip(), shuffle=True)
    torch.manual_seed(3)
    models = [nn.Sequential(nn.Conv2d(3, 5, 3), nn.BatchNorm2d(5), nn.ReLU(), nn.Conv2d(5, 4, 3), nn.BatchNorm2d(4))]
    models.append(copy.deepcopy(models[0]))
    update_bn(loader.epoch(7), models[0])
    step = TrainingStep(tiny(), optim.SGD(tiny().parameters(), lr=0.1), CPU)
    before, momenta = torch.get_rng_state(), [0.1, 0.1]
    models[1].eval()
    recompute(models[1], loader, 7, step)
    for key, value in models[0].state_dict().items():
        assert torch.equal(value, models[1].state_dict()[key]), key
    assert torch.equal(before, torch.get_rng_state())
    assert not models[1].training
    assert [norm.momentum for norm in models[1].modules() if isinstance(norm, nn.BatchNorm2d)] == momenta


@pytest.mark.parametrize(("chosen", "beside"), [("averaged", "last"), ("last", "averaged")])
def test_both_are_validated_and_the_chosen_one_is_tested(chosen: str, beside: str) -> None:
    val, test = make_loader(30), make_loader(20)
    trainer, logged = fitted(LAWA(count=3, every_epochs=0.2, result=chosen), val_loader=val)
    models = {"averaged": model_of(trainer), "last": trainer.model}
    results = {name: evaluate(model, CPU, val) for name, model in models.items()}
    last = [metrics for metrics in logged if "val/accuracy" in metrics][-1]
    assert (last["val/loss"], last["val/accuracy"]) == (results[chosen].loss, results[chosen].accuracy)
    assert last[f"val/{beside}_loss"] == results[beside].loss
    assert last[f"val/{beside}_accuracy"] == results[beside].accuracy
    assert results["averaged"].loss != results["last"].loss
    assert trainer.test(test).loss == evaluate(models[chosen], CPU, test).loss
    facts = trainer.progress()
    assert facts["weights"] == chosen
    assert facts["val_loss"] == results[chosen].loss
    assert facts[f"val_{beside}_loss"] == results[beside].loss


def test_before_an_average_begins_the_last_weights_are_the_result() -> None:
    trainer, logged = fitted(SWA(start=0.6, every_epochs=0.4, result="averaged"), val_loader=make_loader(30))
    first, second = [metrics for metrics in logged if "val/accuracy" in metrics]
    assert "val/last_loss" not in first
    assert "val/last_loss" in second
    assert trainer.progress()["weights"] == "averaged"


@pytest.mark.parametrize("name", AVERAGES)
def test_without_validation_images_the_result_is_ready_after_the_last_epoch(name: str) -> None:
    ready: list[bool] = []
    trainer, _ = make_trainer(make_loader(), average=AVERAGES[name])
    average = trainer.evaluator.average
    assert average is not None
    trainer.after_epoch = lambda: ready.append(average.is_ready)
    trainer.fit()
    assert ready == [name.startswith("ema"), True]


def test_its_state_is_taken_up_again() -> None:
    for name, average in AVERAGES.items():
        whole, _ = fitted(average)
        first, _ = make_trainer(make_loader(), average=average, epochs=2)
        first.train_epoch()
        first.counters.end_epoch()
        state = copy.deepcopy(state_of(first))
        second, _ = make_trainer(make_loader(), average=average)
        take_state(second, state, "the state")
        second.fit()
        expected = state_of(whole)["average"]["state"]
        found = state_of(second)["average"]["state"]
        assert expected.keys() == found.keys(), name
        for key in expected.keys() - {"_extra_state"}:
            assert torch.equal(expected[key], found[key]), (name, key)


@pytest.mark.parametrize(
    ("average", "values", "message"),
    [
        (EMA, {"decay": 1}, "average.decay=1 is not possible: it takes a number from 0 to less than 1."),
        (
            EMA,
            {"statistics": "none"},
            "average.statistics='none' is not possible: it takes one of recomputed, averaged.",
        ),
        (SWA, {"start": 1.0}, "average.start=1.0 is not possible"),
        (LAWA, {"count": 0}, "average.count=0 is not possible: it takes a whole number of snapshots from 1 to 100."),
        (LAWA, {"result": "best"}, "average.result='best' is not possible: it takes one of averaged, last."),
    ],
)
def test_impossible_values_are_one_message(average: Any, values: dict[str, Any], message: str) -> None:
    good: dict[Any, dict[str, Any]] = {
        EMA: {"decay": 0.9, "warmup": True, "every_steps": 1, "statistics": "averaged", "result": "last"},
        SWA: {"start": 0.5, "every_epochs": 1, "result": "last"},
        LAWA: {"count": 2, "every_epochs": 1, "result": "last"},
    }
    with pytest.raises(UserError) as error:
        average(**(good[average] | values))
    assert str(error.value).startswith(message)


def test_an_average_that_would_never_begin_is_refused_while_building() -> None:
    for average in (
        EMA(decay=0.9, warmup=False, every_steps=21, statistics="averaged", result="averaged"),
        LAWA(count=2, every_epochs=3, result="averaged"),
    ):
        with pytest.raises(UserError, match=r"^average\.every_.* the first weights .* after step \d+, .* only 20\.$"):
            make_trainer(make_loader(), average=average)
        make_trainer(make_loader(), average=average, epochs=0)


def test_without_one_there_is_nothing() -> None:
    trainer, _ = fitted(NoAverage())
    assert state_of(trainer)["average"] == {}
    assert "weights" not in trainer.progress()
