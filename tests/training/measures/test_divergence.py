"""When a run has diverged, what is saved then, and which images the means are over."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn, optim

from cifar.base.errors import DivergedError
from cifar.base.sealed import read_checkpoint
from cifar.experiment.run import run
from cifar.training.checkpoint import find_checkpoints
from cifar.training.devices.device import Device
from cifar.training.evaluator import Evaluator
from cifar.training.measures.divergence import MAX_IN_A_ROW, Watch
from cifar.training.measures.tallies import Step, Totals, Window, all_finite
from cifar.training.schedules import Constant
from cifar.training.state import state_of
from cifar.training.steps.step import TrainingStep
from cifar.training.trainer import Trainer
from tests.conftest import QUIET, Compose, read_metrics, read_summary
from tests.tiny_model import tiny
from tests.training.test_trainer import make_loader

GOOD, BAD = Step(1.0, 5, 2.0, 1.0, 10), Step(math.nan, 0, math.nan, 1.0, 10)
EXPLODES = [*QUIET, "optimizer=sgd", "lr=1e36"]


def watch(on_nonfinite: str = "skip", steps_per_epoch: int = 100) -> Watch:
    return Watch(on_nonfinite, "fp32", lambda step: 0.5, steps_per_epoch)


def test_steps_in_a_row_are_counted_over_windows_and_a_good_one_ends_the_row() -> None:
    skipping = watch()
    assert skipping.sort_out([BAD] * 9 + [GOOD] + [BAD] * 5, 0).num_skipped == 14
    state = skipping.state_dict()
    assert state == {"num_skipped": 14, "num_in_a_row": 5, "last_loss": 1.0}
    resumed = watch()
    resumed.load_state_dict(state)
    for one in (skipping, resumed):
        assert one.sort_out([BAD] * 4, 15).num_skipped == 4  # of these, not of the run
        assert not one.has_diverged
        with pytest.raises(DivergedError) as error:
            one.sort_out([BAD, GOOD], 19)
        assert str(error.value) == (
            "Training diverged: 10 steps in a row were skipped; the loss is nan at step 20 (epoch 1) at lr=0.5; the "
            "last finite loss was 1.0000. Try a smaller lr, or schedule=cosine with schedule.warmup_epochs=1."
        )
        assert error.value.facts == {"diverged_step": 20, "diverged_lr": 0.5, "last_finite_loss": 1.0}
        assert (one.num_skipped, one.has_diverged) == (19, True)


@pytest.mark.parametrize(("num_bad", "is_end"), [(0, False), (1, False), (2, False), (3, True), (4, True)])
def test_more_than_half_of_an_epoch_skipped_is_a_divergence(num_bad: int, is_end: bool) -> None:
    one = watch(steps_per_epoch=4)
    totals = one.sort_out([GOOD] * (4 - num_bad) + [BAD] * num_bad, 4)
    assert totals.num_skipped == num_bad
    if is_end:
        message = rf"{num_bad} of the epoch's 4 steps were not finite and were skipped, counted at step 8 \(epoch 2\)"
        with pytest.raises(DivergedError, match=message):
            one.end_epoch(8, totals, is_finite=True)
    else:
        one.end_epoch(8, totals, is_finite=True)
        with pytest.raises(DivergedError, match="weights or the optimizer's state are no longer finite at step 8"):
            one.end_epoch(8, totals, is_finite=False)


def test_loss_and_accuracy_are_over_the_images_of_finite_steps() -> None:
    last = Step(4.0, 10, 6.0, 1.0, 10)
    totals = watch().sort_out([Step(1.0, 50, 2.0, 1.0, 200), BAD, last], 0)
    assert (totals.loss, totals.accuracy) == ((200 * 1.0 + 10 * 4.0) / 210, 60 / 210)
    assert (totals.grad_norm, totals.num_images, totals.num_skipped) == (4.0, 210, 1)
    epoch = Totals()
    epoch.include(totals)
    epoch.include(totals)
    assert (epoch.loss, epoch.accuracy, epoch.num_skipped) == (totals.loss, totals.accuracy, 2)
    nothing = watch().sort_out([BAD], 0)
    assert math.isnan(nothing.loss)
    assert math.isnan(nothing.accuracy)


def test_an_epochs_loss_weighs_images(tmp_path: Path, compose: Compose) -> None:
    """With a learning rate that changes nothing, it is the loss over the training images."""
    words = [*QUIET, "data.source.num_train=84", "batch_size=80", "optimizer=sgd", "lr=1e-30", "log_every=1"]
    run(compose(*words), tmp_path)
    first, last, epoch, _ = read_metrics(tmp_path)
    expected = (80 * first["train/loss"] + 4 * last["train/loss"]) / 84
    assert epoch["train/epoch_loss"] == pytest.approx(expected, rel=1e-12)
    assert first["train/loss"] != last["train/loss"]


@pytest.mark.parametrize("log_every", [1, 100])
def test_a_run_that_skips_most_steps_ends_as_diverged_and_says_so(
    log_every: int, tmp_path: Path, compose: Compose, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    words = [*EXPLODES, "epochs=3", "on_nonfinite=skip", "batch_size=20", f"log_every={log_every}"]
    with pytest.raises(DivergedError, match="3 of the epoch's 4 steps were not finite and were skipped"):
        run(compose(*words), tmp_path)
    summary = read_summary(tmp_path)
    assert (summary["status"], summary["skipped_steps"], summary["diverged_step"]) == ("diverged", 3, 4)
    assert "Step [4/4] Loss: " in caplog.text
    assert " (3 steps skipped: not finite)" in caplog.text


def test_a_run_that_skips_few_steps_is_completed_and_says_how_many(
    tmp_path: Path, compose: Compose, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level("INFO")
    ordinary = TrainingStep.__call__

    def poisoned(step: TrainingStep, inputs: torch.Tensor, labels: torch.Tensor, *rest: int) -> torch.Tensor:
        poisoned.calls += 1  # type: ignore[attr-defined]
        return ordinary(step, inputs * math.nan if poisoned.calls == 3 else inputs, labels, *rest)  # type: ignore[attr-defined]

    poisoned.calls = 0  # type: ignore[attr-defined]
    monkeypatch.setattr(TrainingStep, "__call__", poisoned)
    run(compose(*QUIET, "on_nonfinite=skip"), tmp_path)
    summary = read_summary(tmp_path)
    assert (summary["status"], summary["skipped_steps"]) == ("completed", 1)
    assert "Step [8/8] Loss: " in caplog.text
    assert caplog.text.count(" (1 steps skipped: not finite)") == 3


@pytest.mark.parametrize("on_nonfinite", ["stop", "skip"])
def test_a_state_that_is_not_finite_is_never_saved_over_one_that_is(
    on_nonfinite: str, tmp_path: Path, compose: Compose
) -> None:
    words = [
        *EXPLODES,
        "log_every=100",
        "checkpoint.every_minutes=1e-9",
        "checkpoint.keep=9",
        f"on_nonfinite={on_nonfinite}",
    ]
    with pytest.raises(DivergedError):
        run(compose(*words), tmp_path)
    paths = find_checkpoints(tmp_path)
    assert paths
    for path in paths:
        content = read_checkpoint(path)
        tensors = [*content["model"].values()]
        tensors += [value for state in content["optimizer"]["state"].values() for value in state.values()]
        assert all_finite([tensor for tensor in tensors if isinstance(tensor, torch.Tensor)]), path
        assert on_nonfinite == "skip" or all_finite([content["window"]["rows"]]), path


def test_weights_that_overflow_in_the_last_step_are_a_divergence() -> None:
    model = tiny()
    step = TrainingStep(model, optim.SGD(model.parameters(), lr=0.1), Device(torch.device("cpu"), "fp32"))

    def overflow() -> None:
        if trainer.counters.step == 10:
            next(model.parameters()).data.fill_(math.inf)

    trainer = Trainer(step, Constant(), make_loader(100), None, epochs=1, log_every=10, between_batches=overflow)
    with pytest.raises(DivergedError, match=r"the optimizer's state are no longer finite at step 10 \(epoch 1"):
        trainer.fit()
    assert trainer.watch.has_diverged


@pytest.mark.parametrize("epochs", [0, 1])
def test_a_model_without_a_finite_loss_on_the_test_images_is_not_completed(
    epochs: int, tmp_path: Path, compose: Compose, monkeypatch: pytest.MonkeyPatch
) -> None:
    test = Trainer.test

    def overflow(trainer: Trainer, *args: Any) -> Any:
        next(trainer.model.parameters()).data.fill_(math.nan)
        return test(trainer, *args)

    monkeypatch.setattr(Trainer, "test", overflow)
    with pytest.raises(DivergedError, match=f"The loss on the test images is nan after {8 * epochs} steps"):
        run(compose(*QUIET, f"epochs={epochs}"), tmp_path)
    summary = read_summary(tmp_path)
    assert (summary["status"], summary["steps"], summary["test_loss"]) == ("diverged", 8 * epochs, None)
    assert 0 <= summary["test_accuracy"] <= 1


def test_a_buffer_that_is_infinite_on_purpose_is_no_fault() -> None:
    class Masked(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = tiny()
            self.register_buffer("mask", torch.full((10,), -math.inf))

        def forward(self, inputs: torch.Tensor) -> torch.Tensor:
            logits: torch.Tensor = self.inner(inputs)
            return logits

    model = Masked()
    step = TrainingStep(model, optim.SGD(model.parameters(), lr=0.1), Device(torch.device("cpu"), "fp32"))
    assert step.is_finite()
    for tensor in (model.inner[1].running_var, next(model.parameters())):  # type: ignore[index]
        before = tensor.detach().clone()
        with torch.no_grad():
            tensor.flatten()[0].fill_(math.inf)
        assert not step.is_finite()
        with torch.no_grad():
            tensor.copy_(before)
    assert step.is_finite()


def test_a_windows_seconds_are_saved_and_stand_still_until_it_goes_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = 100.0
    monkeypatch.setattr("cifar.training.measures.tallies.perf_counter", lambda: now)
    window = Window()
    window.add(torch.tensor([1.0, 2.0, 3.0, 1.0]), 10)
    now = 107.0
    state: dict[str, Any] = window.state_dict()
    assert state["seconds"] == 7.0
    now = 500.0
    restored = Window(state)
    now = 600.0
    assert restored.state_dict()["seconds"] == 7.0
    restored.go()
    now = 602.0
    restored.go()
    assert restored.state_dict()["seconds"] == 9.0
    restored.halt()
    now = 700.0
    restored.halt()
    assert restored.read() == [Step(1.0, 2.0, 3.0, 1.0, 10)]
    assert restored.seconds == 9.0


def test_neither_saving_nor_validating_counts_as_training(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    for module in ("measures.tallies", "evaluator"):
        monkeypatch.setattr(f"cifar.training.{module}.perf_counter", lambda: now)

    def pass_time(seconds: float) -> None:
        nonlocal now
        now += seconds

    class Timed(TrainingStep):
        def __call__(self, inputs: torch.Tensor, labels: torch.Tensor, num_images: int | None = None) -> torch.Tensor:
            pass_time(2.0)
            return super().__call__(inputs, labels, num_images)

    model = tiny()
    step = Timed(model, optim.SGD(model.parameters(), lr=0.1), Device(torch.device("cpu"), "fp32"))
    logged = []
    trainer = Trainer(
        step, Constant(), make_loader(100), make_loader(30), epochs=2, log_every=5,
        log_metrics=lambda metrics, step, epoch: logged.append(metrics),
    )  # fmt: skip

    def save() -> None:
        with trainer.apart_from_training():
            pass_time(50.0)
            seconds.append(state_of(trainer)["window"]["seconds"])

    seconds: list[float] = []
    trainer.between_batches = trainer.after_epoch = save
    trainer.fit()
    speeds = [metrics["train/images_per_second"] for metrics in logged if "train/images_per_second" in metrics]
    assert speeds == [5.0] * 4
    assert trainer.counters.train_seconds == 40.0
    assert seconds[:6] == [2.0, 4.0, 6.0, 8.0, 0.0, 2.0]
    assert trainer.progress()["images_per_second"] == 5.0


@pytest.mark.parametrize(("number", "epoch"), [(1, 1), (4, 1), (5, 2), (8, 2), (9, 3)])
def test_the_step_that_diverged_is_counted_from_one_with_its_own_rate_and_epoch(number: int, epoch: int) -> None:
    one = Watch("stop", "fp32", lambda step: step / 8, steps_per_epoch=4)
    with pytest.raises(
        DivergedError, match=rf"at step {number} \(epoch {epoch}\) at lr={(number - 1) / 8:g}; "
    ) as error:
        one.sort_out([GOOD] * (number - 1) + [BAD], 0)
    last = None if number == 1 else 1.0
    facts = {"diverged_step": number, "diverged_lr": (number - 1) / 8, "last_finite_loss": last}
    assert error.value.facts == facts
    assert str(error.value).endswith("warmup_epochs=1, or on_nonfinite=skip.")


@pytest.mark.parametrize(
    ("loss", "norm", "scale", "is_finite", "is_overflow"),
    [
        (1.0, 1.0, 1.0, True, False), (1.0, 1.0, 8.0, True, False),
        (1.0, math.inf, 8.0, False, True), (1.0, math.nan, 2.0, False, True),
        (1.0, math.inf, 1.0, False, False),  # that gradient was not scaled
        (math.nan, 1.0, 8.0, False, False), (math.inf, math.inf, 8.0, False, False), (math.nan, 1.0, 1.0, False, False),
    ],
)  # fmt: skip
def test_only_a_scaled_gradient_overflows(
    loss: float, norm: float, scale: float, is_finite: bool, is_overflow: bool
) -> None:
    step = Step(loss, 0, norm, scale, 10)
    assert (step.is_finite, step.is_overflow) == (is_finite, is_overflow)
    assert watch("stop").allows([GOOD, step]) == (is_finite or is_overflow)
    assert watch("skip").allows([GOOD, step])


def test_a_run_whose_test_loss_is_no_number_knows_its_last_loss() -> None:
    one = Watch("skip", "fp16", lambda step: 0.5, 4)
    one.sort_out([GOOD], 0)
    assert one.verdict(2.5, 7) is None
    error = one.verdict(math.inf, 7)
    assert error is not None
    assert error.facts == {"last_finite_loss": 1.0}
    assert str(error).startswith("The loss on the test images is inf after 7 steps: ")
    assert "fp16 holds numbers up to 65504 only" in str(error)
    assert "fp16" not in str(watch().verdict(math.nan, 7))


def test_the_best_epoch_is_the_first_of_equals(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny()
    step = TrainingStep(model, optim.SGD(model.parameters(), lr=1e-30), Device(torch.device("cpu"), "fp32"))
    trainer = Trainer(step, Constant(), make_loader(20), make_loader(30), epochs=3, log_every=5)
    accuracies = iter([0.5, 0.7, 0.7])
    evaluate = Evaluator.evaluate

    def evaluated(evaluator: Evaluator, *args: Any) -> Any:
        result = evaluate(evaluator, *args)
        object.__setattr__(result, "accuracy", next(accuracies))
        return result

    monkeypatch.setattr(Evaluator, "evaluate", evaluated)
    trainer.fit()
    assert trainer.counters.best is not None
    assert (trainer.counters.best.epoch, trainer.counters.best.accuracy) == (2, 0.7)
    assert MAX_IN_A_ROW == 10
