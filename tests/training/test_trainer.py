"""The loop against hand-written loops; evaluation; what it logs."""

import math
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from time import perf_counter
from typing import Any

import pytest
import torch
from torch import Tensor, nn, optim
from torch.nn import functional as F

from cifar.base.errors import DivergedError, UserError
from cifar.data.augment.crops import CropFlip
from cifar.data.loader import Loader
from cifar.training.devices.device import set_up_device
from cifar.training.devices.memory import explain_out_of_memory
from cifar.training.evaluator import Metrics
from cifar.training.measures.tallies import Window
from cifar.training.progress import outlook
from cifar.training.schedules import Constant, Cosine, Schedule, Step
from cifar.training.state import state_of
from cifar.training.steps.step import TrainingStep
from cifar.training.trainer import Trainer
from tests.tiny_model import tiny

CPU = set_up_device("cpu", "fp32", channels_last=False, fast_conv=False, compile=False, threads=None)


def make_loader(num_images: int = 100, batch_size: int = 10, **options: Any) -> Loader:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (num_images, 3, 32, 32), dtype=torch.uint8, generator=generator)
    labels = torch.arange(num_images) % 10
    return Loader(images, labels, batch_size=batch_size, mean=[0.5] * 3, std=[0.25] * 3, **options)


def make_trainer(
    loader: Loader,
    make_optimizer: Callable[..., optim.Optimizer] = lambda parameters: optim.SGD(parameters, lr=0.1),
    schedule: Schedule | None = None,
    val_loader: Loader | None = None,
    **options: Any,
) -> tuple[Trainer, list[Metrics]]:
    """Return a trainer of the tiny model, weights by seed 0, and the list that it logs to."""
    logged: list[Metrics] = []

    def log_metrics(metrics: Metrics, step: int, epoch: int) -> None:
        logged.append({"step": step, "epoch": epoch, **metrics})

    torch.manual_seed(0)
    model = tiny()
    options = {"epochs": 2, "log_every": 1, **options}
    of_step = {
        key: options.pop(key)
        for key in ("label_smoothing", "accumulate", "on_nonfinite", "clip_norm")
        if key in options
    }
    step = TrainingStep(model, make_optimizer(model.parameters()), CPU, **of_step)
    return Trainer(step, schedule or Constant(), loader, val_loader, log_metrics=log_metrics, **options), logged


def losses_of(logged: list[Metrics]) -> list[float]:
    return [metrics["train/loss"] for metrics in logged if "train/loss" in metrics]


@pytest.mark.parametrize("label_smoothing", [0.0, 0.1])
@pytest.mark.parametrize(
    ("schedule", "factor"),
    [
        (Constant(), lambda step: 1.0),
        (Step(every_epochs=0.5, factor=0.5), lambda step: 0.5 ** (step // 5)),
        (Cosine(warmup_epochs=0.2), lambda step: (step + 1) / 2 if step < 2
         else (1 + math.cos(math.pi * (step - 2) / 18)) / 2),
    ],
)  # fmt: skip
@pytest.mark.parametrize(
    "make_optimizer",
    [
        lambda parameters: optim.Adam(parameters, lr=0.01),
        lambda parameters: optim.AdamW(parameters, lr=0.01, weight_decay=0.1),
        lambda parameters: optim.SGD(parameters, lr=0.1, momentum=0.9, nesterov=True, weight_decay=1e-3),
    ],
)
def test_twenty_steps_equal_a_hand_written_loop(
    make_optimizer: Callable[..., optim.Optimizer],
    schedule: Schedule,
    factor: Callable[[int], float],
    label_smoothing: float,
) -> None:
    loader = make_loader()
    torch.manual_seed(0)
    model = tiny()
    optimizer = make_optimizer(model.parameters())
    base_lr = optimizer.param_groups[0]["lr"]
    criterion = nn.CrossEntropyLoss(label_smoothing=label_smoothing)
    expected, lrs = [], []
    for step in range(20):
        batch = slice(10 * (step % 10), 10 * (step % 10) + 10)
        inputs = (loader.images[batch].float() / 255 - 0.5) / 0.25
        optimizer.param_groups[0]["lr"] = base_lr * factor(step)
        optimizer.zero_grad()
        loss = criterion(model(inputs), loader.labels[batch])
        loss.backward()
        optimizer.step()
        expected.append(loss.item())
        lrs.append(base_lr * factor(step))

    trainer, logged = make_trainer(loader, make_optimizer, schedule, label_smoothing=label_smoothing)
    trainer.fit()
    assert losses_of(logged) == pytest.approx(expected, abs=1e-6)
    assert [metrics["lr"] for metrics in logged if "lr" in metrics] == pytest.approx(lrs, rel=1e-12)
    for key, value in model.state_dict().items():
        assert torch.allclose(trainer.model.state_dict()[key], value, atol=1e-6), key


def test_every_parameter_group_keeps_its_own_rate() -> None:
    def make_optimizer(parameters: Any) -> optim.Optimizer:
        first, *rest = parameters
        return optim.SGD([{"params": [first], "lr": 0.4}, {"params": rest}], lr=0.1)

    trainer, _ = make_trainer(make_loader(), make_optimizer, Step(every_epochs=1, factor=0.5))
    trainer.fit()
    assert [group["lr"] for group in trainer.optimizer.param_groups] == [0.2, 0.05]


def test_the_same_seed_gives_bit_identical_losses_and_weights() -> None:
    results = []
    for seed in (0, 0, 1):
        loader = make_loader(shuffle=True, augment=CropFlip(), seed=seed)
        trainer, logged = make_trainer(loader)
        trainer.fit()
        results.append((losses_of(logged), [*trainer.model.parameters()]))
    assert results[0][0] == results[1][0]
    assert all(torch.equal(a, b) for a, b in zip(results[0][1], results[1][1], strict=True))
    assert results[0][0] != results[2][0]


@pytest.mark.parametrize("log_every", [3, 5, 10, 100])
def test_logged_losses_are_means_over_the_steps_since_the_last(
    log_every: int, caplog: pytest.LogCaptureFixture
) -> None:
    every_step, steps = make_trainer(make_loader(95), log_every=1)
    every_step.fit()
    losses, accuracies = losses_of(steps), [m["train/accuracy"] for m in steps if "train/accuracy" in m]
    sizes = [*[10] * 9, 5] * 2

    def mean(start: int, end: int) -> float:  # images weigh the same
        weighed = [loss * size for loss, size in zip(losses[start:end], sizes[start:end], strict=True)]
        return sum(weighed) / sum(sizes[start:end])

    caplog.clear()
    with caplog.at_level("INFO"):
        trainer, logged = make_trainer(make_loader(95), log_every=log_every)
        trainer.fit()
    expected, lines = [], []
    for epoch in (1, 2):
        first = 10 * (epoch - 1)
        bounds = [*range(0, 10, log_every), 10]
        for start, end in pairwise(bounds):
            expected.append((first + end, mean(first + start, first + end)))
            lines.append(f"Epoch [{epoch}/2], Step [{end}/10] Loss: {mean(first, first + end):.4f}")
    windows = [(metrics["step"], metrics["train/loss"]) for metrics in logged if "train/loss" in metrics]
    assert [step for step, _ in windows] == [step for step, _ in expected]
    assert [loss for _, loss in windows] == pytest.approx([loss for _, loss in expected], abs=1e-6)
    assert caplog.messages == lines
    epochs = [metrics for metrics in logged if "train/epoch_loss" in metrics]
    assert [(metrics["step"], metrics["epoch"]) for metrics in epochs] == [(10, 1), (20, 2)]
    assert epochs[0]["train/epoch_loss"] == pytest.approx(mean(0, 10), abs=1e-12)
    correct = sum(accuracy * size for accuracy, size in zip(accuracies[:10], [10] * 9 + [5], strict=True))
    assert epochs[0]["train/epoch_accuracy"] == pytest.approx(correct / 95)


@pytest.mark.parametrize("batch_size", [1, 7, 100])
def test_evaluation_is_the_mean_over_images_whatever_the_batches(batch_size: int) -> None:
    loader = make_loader(100, batch_size)
    trainer, _ = make_trainer(make_loader(), label_smoothing=0.3)
    trainer.model.train()
    result = trainer.evaluator.evaluate(trainer.model, loader, trainer.counters)
    trainer.model.eval()
    with torch.no_grad():
        logits = trainer.model(loader.normalise(loader.images))
    assert result.loss == pytest.approx(F.cross_entropy(logits, loader.labels).item(), rel=1e-5)
    assert torch.equal(result.predictions, logits.argmax(1))
    assert result.accuracy == (logits.argmax(1) == loader.labels).sum().item() / 100


def test_evaluation_changes_nothing() -> None:
    plain, logged = make_trainer(make_loader())
    plain.fit()
    validated, logged_too = make_trainer(make_loader(), val_loader=make_loader(30))
    validated.fit()
    assert losses_of(logged) == losses_of(logged_too)
    assert sum("val/accuracy" in metrics for metrics in logged_too) == 2
    assert not any("val/accuracy" in metrics for metrics in logged)


def test_zero_epochs_train_nothing_but_save_and_validate() -> None:
    saved: list[int] = []
    trainer, logged = make_trainer(
        make_loader(), val_loader=make_loader(30), epochs=0, after_epoch=lambda: saved.append(1)
    )
    before = [parameter.clone() for parameter in trainer.model.parameters()]
    trainer.fit()
    assert all(torch.equal(a, b) for a, b in zip(before, trainer.model.parameters(), strict=True))
    assert (logged, saved, trainer.counters.step) == ([], [1], 0)
    assert trainer.counters.val_result is not None
    trainer.test(make_loader(20))
    assert [sorted(metrics) for metrics in logged] == [["epoch", "step", "test/accuracy", "test/loss"]]


def test_a_loss_that_is_not_finite_stops_the_run_and_names_step_and_lr() -> None:
    class Poison(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner, self.calls = tiny(), 0

        def forward(self, inputs: Tensor) -> Tensor:
            self.calls += 1
            logits: Tensor = self.inner(inputs)
            return logits * math.nan if self.calls == 7 else logits

    trainer, logged = make_trainer(make_loader(), log_every=5)
    trainer.train_step.forward = Poison()
    with pytest.raises(DivergedError, match=r"loss is nan at step 7 \(epoch 1\) at lr=0\.1; the last") as error:
        trainer.fit()
    assert (error.value.status, len(logged)) == ("diverged", 1)
    plain, every_step = make_trainer(make_loader())
    plain.train_step.forward = Poison()
    with pytest.raises(DivergedError):
        plain.fit()
    last_loss = losses_of(every_step)[-1]
    assert error.value.facts == {"diverged_step": 7, "diverged_lr": 0.1, "last_finite_loss": last_loss}
    assert f"the last finite loss was {last_loss:.4f}" in str(error.value)


def test_saved_state_holds_what_a_resume_needs(tmp_path: Path) -> None:
    trainer, _ = make_trainer(make_loader(), lambda parameters: optim.Adam(parameters))
    trainer.fit()
    torch.save(state_of(trainer), tmp_path / "state.pt")
    state = torch.load(tmp_path / "state.pt", weights_only=True)
    assert (state["counters"]["step"], state["counters"]["epoch"]) == (20, 2)
    assert state["model"].keys() == trainer.model.state_dict().keys()
    assert state["optimizer"]["state"][0]["step"] == 20
    assert torch.equal(state["rng"]["cpu"], torch.get_rng_state())


def without_batch_norm() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=2), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 10)
    )


@pytest.mark.parametrize("accumulate", [2, 3, 10])
@pytest.mark.parametrize("num_images", [100, 93])  # the last batch has ten images or three
def test_parts_of_a_batch_add_up_to_the_batch(accumulate: int, num_images: int) -> None:
    results = []
    for parts in (1, accumulate):
        model = without_batch_norm()
        logged: list[Metrics] = []
        optimizer = optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
        trainer = Trainer(
            TrainingStep(model, optimizer, CPU, label_smoothing=0.1, accumulate=parts),
            Constant(), make_loader(num_images), None, epochs=2, log_every=1,
            log_metrics=lambda metrics, step, epoch, logged=logged: logged.append(metrics),  # type: ignore[misc]
        )  # fmt: skip
        sizes: list[int] = []
        model.register_forward_hook(lambda module, inputs, output, sizes=sizes: sizes.append(len(output)))
        trainer.fit()
        results.append((logged, [*model.parameters()], sizes))
    (whole, weights, _), (in_parts, same_weights, sizes) = results
    for name in ("train/loss", "train/accuracy", "train/grad_norm"):
        expected, found = ([metrics[name] for metrics in logged if name in metrics] for logged in (whole, in_parts))
        assert found == pytest.approx(expected, rel=1e-4)
    for one, other in zip(weights, same_weights, strict=True):
        assert torch.allclose(one, other, atol=1e-6)
    assert max(sizes) == -(-10 // accumulate)
    assert min(sizes) >= 1


def test_the_logged_norm_is_that_of_the_gradient() -> None:
    trainer, logged = make_trainer(make_loader(10), epochs=1)
    trainer.fit()
    squares = sum(float((weight.grad**2).sum()) for weight in trainer.model.parameters() if weight.grad is not None)
    assert logged[0]["train/grad_norm"] == pytest.approx(math.sqrt(squares), rel=1e-5)


class Overflowing(nn.Module):
    """The tiny network, fed with infinity at the given calls."""

    def __init__(self, calls: set[int]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.inner, self.calls, self.number = tiny(), calls, 0

    def forward(self, inputs: Tensor) -> Tensor:
        self.number += 1
        logits: Tensor = self.inner(inputs * math.inf if self.number in self.calls else inputs)
        return logits


def overflowing_trainer(calls: set[int], on_nonfinite: str, log_every: int = 5) -> tuple[Trainer, list[Metrics]]:
    model, logged = Overflowing(calls), list[Metrics]()
    trainer = Trainer(
        TrainingStep(model, optim.Adam(model.parameters(), lr=0.01), CPU, on_nonfinite=on_nonfinite),
        Constant(), make_loader(), None, epochs=1, log_every=log_every,
        log_metrics=lambda metrics, step, epoch: logged.append({"step": step, **metrics}),
    )  # fmt: skip
    return trainer, logged


def test_a_skipped_step_changes_neither_weights_nor_statistics_nor_the_optimizer() -> None:
    trainer, logged = overflowing_trainer({3, 4}, on_nonfinite="skip", log_every=1)
    states = []
    trainer.between_batches = lambda: states.append({
        **{key: value.clone() for key, value in trainer.model.state_dict().items()},
        "adam": int(trainer.optimizer.state_dict()["state"][0]["step"]),
    })  # fmt: skip
    trainer.fit()
    for index in (2, 3):
        for key, value in states[1].items():
            assert torch.equal(torch.as_tensor(value), torch.as_tensor(states[index][key])), key
    assert not torch.equal(states[3]["inner.0.weight"], states[4]["inner.0.weight"])
    assert trainer.watch.num_skipped == trainer.progress()["skipped_steps"] == 2
    assert (trainer.counters.step, trainer.counters.epoch) == (10, 1)
    steps = [metrics for metrics in logged if "lr" in metrics]
    assert [metrics.get("train/skipped_steps", 0) for metrics in steps] == [0, 0, 1, 2, 2, 2, 2, 2, 2, 2]
    assert [math.isnan(metrics["train/loss"]) for metrics in steps] == [number in (3, 4) for number in range(1, 11)]
    finite = [metrics["train/loss"] for metrics in steps if not math.isnan(metrics["train/loss"])]
    assert logged[-1]["train/epoch_loss"] == pytest.approx(sum(finite) / 8)


def test_the_mean_of_a_window_leaves_skipped_steps_out() -> None:
    every_step, steps = overflowing_trainer({3, 4}, on_nonfinite="skip", log_every=1)
    every_step.fit()
    trainer, logged = overflowing_trainer({3, 4}, on_nonfinite="skip", log_every=5)
    trainer.fit()
    finite = [metrics["train/loss"] for metrics in steps[:5] if not math.isnan(metrics["train/loss"])]
    assert len(finite) == 3
    assert logged[0]["train/loss"] == pytest.approx(sum(finite) / 3)


def test_without_a_fault_skip_and_stop_are_the_same_to_the_last_bit() -> None:
    results = []
    for on_nonfinite in ("stop", "skip"):
        trainer, logged = overflowing_trainer(set(), on_nonfinite=on_nonfinite)
        trainer.fit()
        results.append((losses_of(logged), [*trainer.model.state_dict().values()]))
    assert results[0][0] == results[1][0]
    assert all(torch.equal(one, other) for one, other in zip(results[0][1], results[1][1], strict=True))


def test_a_gradient_that_is_not_finite_stops_the_run_too() -> None:
    trainer, _ = make_trainer(make_loader(), log_every=5)
    weight = next(trainer.model.parameters())
    weight.register_hook(lambda gradient: gradient * math.inf if trainer.counters.step == 3 else gradient)
    with pytest.raises(DivergedError, match=r"the norm of the gradient is (inf|nan) at step 4 \(epoch 1\)"):
        trainer.fit()


def test_divergence_in_the_first_step_names_no_finite_loss() -> None:
    trainer, _ = overflowing_trainer({1}, on_nonfinite="stop")
    with pytest.raises(DivergedError, match=r"loss is nan at step 1 .*; no loss was finite\."):
        trainer.fit()


class Greedy(nn.Module):
    """A network that asks for an exabyte."""

    def forward(self, inputs: Tensor) -> Tensor:
        return torch.empty((len(inputs), 10**17))


@pytest.mark.parametrize("accumulate", [1, 4])
def test_lack_of_memory_names_the_batch_size_and_says_what_to_change(accumulate: int) -> None:
    trainer, _ = make_trainer(make_loader(), accumulate=accumulate)
    trainer.train_step.forward = Greedy()
    with pytest.raises(UserError) as error:
        trainer.fit()
    assert str(error.value).startswith("batch_size=10: a batch does not fit into the memory. Try accumulate=")
    assert f"accumulate={2 * accumulate}," in str(error.value)


def test_lack_of_memory_in_the_evaluation_names_its_batch_size() -> None:
    trainer, _ = make_trainer(make_loader())
    with pytest.raises(UserError, match=r"eval_batch_size=10: .* Try a smaller eval_batch_size\."):
        trainer.evaluator.evaluate(Greedy(), make_loader(), trainer.counters)


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20 GiB"),
                                   RuntimeError("MPS backend out of memory")])  # fmt: skip
def test_every_devices_lack_of_memory_is_known(error: Exception) -> None:
    with (
        pytest.raises(UserError, match=r"batch_size=3: a batch does not fit.* Try hard"),
        explain_out_of_memory("batch_size", 3, "hard"),
    ):
        raise error
    with pytest.raises(RuntimeError, match=r"^other$"), explain_out_of_memory("batch_size", 3, ""):
        raise RuntimeError("other")


def test_a_saved_window_gives_the_same_means(tmp_path: Path) -> None:
    window = Window()
    for number in range(3):
        window.add(torch.tensor([0.1 * number, number, 1.0, 1.0]), 10 + number)
    torch.save(window.state_dict(), tmp_path / "window.pt")
    restored = Window(torch.load(tmp_path / "window.pt", weights_only=True), torch.device("cpu"))
    assert restored.read() == window.read()
    assert restored.num_images == 33


def test_what_surrounds_a_step_costs_less_than_half_a_millisecond() -> None:
    row, seconds = torch.zeros(4), []
    for _ in range(3):  # other work may have halted one of them
        trainer, logged = make_trainer(make_loader(500, batch_size=1), log_every=100, epochs=1)
        batches = [*trainer.train_loader.epoch(0)]
        trainer.train_loader.epoch = lambda number, start=0, batches=batches: iter(batches)  # type: ignore
        trainer.train_step.__class__ = type("Nothing", (TrainingStep,), {"__call__": lambda *_: row})
        start = perf_counter()
        trainer.train_epoch()
        seconds.append((perf_counter() - start) / len(batches))
        assert len(logged) == 5
    assert min(seconds) < 5e-4


def test_random_states_of_other_devices_do_not_matter() -> None:
    state = CPU.random_state()
    expected = torch.rand(3)
    CPU.set_random_state(state | {"cuda": [torch.zeros(16, dtype=torch.uint8)], "mps": torch.zeros(3)})
    assert torch.equal(torch.rand(3), expected)


def test_the_bar_shows_the_loss_and_the_time_left_of_the_whole_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only where the loop has waited for the device anyway."""
    shown: list[str] = []
    monkeypatch.setattr("cifar.training.progress.tqdm.set_postfix_str", lambda bar, text, refresh: shown.append(text))
    trainer, logged = make_trainer(make_loader(), log_every=5, epochs=3)
    trainer.fit()
    losses = losses_of(logged)
    epochs = [losses[2 * epoch : 2 * epoch + 2] for epoch in range(3)]
    means = [mean for first, second in epochs for mean in (first, (first + second) / 2)]
    assert [text.partition(",")[0] for text in shown] == [f"loss {mean:.4f}" for mean in means]
    assert shown[-1].endswith(", the run ends in 00:00")
    assert outlook(1.23456, seconds=30.0, num_done=10, num_left=25) == "loss 1.2346, the run ends in 01:15"
