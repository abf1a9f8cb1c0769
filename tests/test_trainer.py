"""The loop against hand-written loops; evaluation; what it logs."""

import math
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn, optim
from torch.nn import functional as F

from cifar.data.augment import CropFlip
from cifar.data.loader import Loader
from cifar.device import set_up_device
from cifar.errors import DivergedError
from cifar.schedules import Constant, Cosine, Schedule, Step
from cifar.trainer import Metrics, Trainer
from tests.tiny_model import tiny

CPU = set_up_device("cpu", "fp32", channels_last=False, compile=False, threads=None)


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
    defaults: dict[str, Any] = {
        "epochs": 2,
        "label_smoothing": 0.0,
        "accumulate": 1,
        "on_nonfinite": "stop",
        "log_every": 1,
    }
    options = defaults | options
    optimizer = make_optimizer(model.parameters())
    trainer = Trainer(
        model, optimizer, schedule or Constant(), loader, val_loader, CPU, log_metrics=log_metrics, **options
    )
    return trainer, logged


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
    caplog.clear()
    with caplog.at_level("INFO"):
        trainer, logged = make_trainer(make_loader(95), log_every=log_every)
        trainer.fit()
    expected, lines = [], []
    for epoch in (1, 2):
        first = 10 * (epoch - 1)
        bounds = [*range(0, 10, log_every), 10]
        for start, end in pairwise(bounds):
            expected.append((first + end, sum(losses[first + start : first + end]) / (end - start)))
            mean = sum(losses[first : first + end]) / end
            lines.append(f"Epoch [{epoch}/2], Step [{end}/10] Loss: {mean:.4f}")
    windows = [(metrics["step"], metrics["train/loss"]) for metrics in logged if "train/loss" in metrics]
    assert [step for step, _ in windows] == [step for step, _ in expected]
    assert [loss for _, loss in windows] == pytest.approx([loss for _, loss in expected], abs=1e-6)
    assert caplog.messages == lines
    epochs = [metrics for metrics in logged if "train/epoch_loss" in metrics]
    assert [(metrics["step"], metrics["epoch"]) for metrics in epochs] == [(10, 1), (20, 2)]
    assert epochs[0]["train/epoch_loss"] == pytest.approx(sum(losses[:10]) / 10, abs=1e-6)
    correct = sum(accuracy * size for accuracy, size in zip(accuracies[:10], [10] * 9 + [5], strict=True))
    assert epochs[0]["train/epoch_accuracy"] == pytest.approx(correct / 95)


@pytest.mark.parametrize("batch_size", [1, 7, 100])
def test_evaluation_is_the_mean_over_images_whatever_the_batches(batch_size: int) -> None:
    loader = make_loader(100, batch_size)
    trainer, _ = make_trainer(make_loader(), label_smoothing=0.3)
    trainer.model.train()
    result = trainer.evaluate(loader)
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
    assert (logged, saved, trainer.step) == ([], [1], 0)
    assert trainer.val_result is not None
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
    trainer.forward = Poison()
    with pytest.raises(DivergedError, match=r"loss is nan at step 7 \(epoch 1\) at lr=0\.1; the last") as error:
        trainer.fit()
    assert (error.value.status, len(logged)) == ("diverged", 1)
    plain, every_step = make_trainer(make_loader())
    plain.forward = Poison()
    with pytest.raises(DivergedError):
        plain.fit()
    last_loss = losses_of(every_step)[-1]
    assert error.value.facts == {"diverged_step": 7, "diverged_lr": 0.1, "last_finite_loss": last_loss}
    assert f"the last finite loss was {last_loss:.4f}" in str(error.value)


def test_saved_state_holds_what_a_resume_needs(tmp_path: Path) -> None:
    trainer, _ = make_trainer(make_loader(), lambda parameters: optim.Adam(parameters))
    trainer.fit()
    torch.save(trainer.state_dict(), tmp_path / "state.pt")
    state = torch.load(tmp_path / "state.pt", weights_only=True)
    assert (state["step"], state["epoch"]) == (20, 2)
    assert state["model"].keys() == trainer.model.state_dict().keys()
    assert state["optimizer"]["state"][0]["step"] == 20
    assert torch.equal(state["rng"]["cpu"], torch.get_rng_state())
