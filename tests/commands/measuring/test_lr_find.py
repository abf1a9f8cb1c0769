"""cifar lr-find: the rates and losses of a hand-written loop, nothing changed by it, its files, its messages."""

import copy
import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn, optim
from torch.nn import functional as F

from cifar.commands.measuring import lr_find
from cifar.data.augment.crops import CropFlip
from cifar.training.devices.device import Device
from cifar.training.steps.range_test import BLOWN_UP, RangeTest, range_test, rates
from cifar.training.steps.step import TrainingStep
from tests.conftest import TINY
from tests.in_process import exit_of
from tests.tiny_model import tiny
from tests.training.test_trainer import CPU, make_loader


def make_step(device: Device = CPU) -> TrainingStep:
    torch.manual_seed(0)
    model = tiny()
    head = [weight for name, weight in model.named_parameters() if name.startswith("6.")]
    rest = [weight for name, weight in model.named_parameters() if not name.startswith("6.")]
    groups: list[dict[str, Any]] = [{"params": rest}, {"params": head, "lr": 0.4}]
    return TrainingStep(model, optim.SGD(groups, lr=0.1, momentum=0.9), device)


def state_of(step: TrainingStep) -> dict[str, Any]:
    return copy.deepcopy({
        "model": {**step.model.state_dict()}, "optimizer": step.optimizer.state_dict(), "rng": torch.get_rng_state(),
        "scaler": step.scaler.state_dict(), "grads": [weight.grad for weight in step.model.parameters()],
    })  # fmt: skip


def test_rates_rise_by_the_same_factor() -> None:
    found = rates(1e-4, 1.0, 5)
    assert found == pytest.approx([1e-4, 1e-3, 1e-2, 1e-1, 1.0])


def test_losses_are_those_of_a_hand_written_loop_and_groups_keep_their_ratio() -> None:
    loader, lrs = make_loader(45, shuffle=True, augment=CropFlip()), rates(1e-3, 0.5, 12)  # five steps an epoch
    found = range_test(make_step(), loader, lrs)
    reference = make_step()
    model, optimizer = reference.model.train(), reference.optimizer
    batches = [batch for epoch in range(3) for batch in loader.epoch(epoch)]
    losses = []
    for lr, (inputs, labels) in zip(lrs, batches, strict=False):
        optimizer.param_groups[0]["lr"], optimizer.param_groups[1]["lr"] = lr, 4 * lr
        optimizer.zero_grad()
        loss = F.cross_entropy(model(inputs), labels)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert found.losses == pytest.approx(losses, abs=1e-6)
    assert found.lrs == lrs
    mean = [sum(0.1 * 0.9 ** (n - k) * losses[k] for k in range(n + 1)) / (1 - 0.9 ** (n + 1)) for n in range(12)]
    assert found.smoothed == pytest.approx(mean, abs=1e-6)
    assert not found.has_blown_up


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
@pytest.mark.parametrize("steps_before", [0, 3])
def test_afterwards_all_is_as_it_was(steps_before: int, precision: str) -> None:
    step, loader = make_step(Device(torch.device("cpu"), precision)), make_loader()
    for inputs, labels in [*loader.epoch(9)][:steps_before]:
        step(inputs, labels)
    step.optimizer.zero_grad()
    before = state_of(step)
    range_test(step, loader, rates(1e-3, 1e4, 30))
    after = state_of(step)
    torch.testing.assert_close(after, before, rtol=0, atol=0)


def test_it_ends_where_the_loss_blows_up_or_is_not_finite() -> None:
    found = range_test(make_step(), make_loader(), rates(1e-2, 1e8, 60))
    assert found.has_blown_up
    assert found.smoothed[-1] > BLOWN_UP * min(found.smoothed) or len(found.losses) < 60

    class Poison(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner, self.calls = tiny(), 0

        def forward(self, inputs: torch.Tensor) -> torch.Tensor:
            self.calls += 1
            logits: torch.Tensor = self.inner(inputs)
            return logits * (math.nan if self.calls == 6 else 1)

    model = Poison()
    found = range_test(
        TrainingStep(model, optim.SGD(model.parameters(), lr=0.1), CPU), make_loader(), rates(0.01, 1, 20)
    )
    assert len(found.losses) == 5
    assert found.has_blown_up


def test_what_is_named_of_a_curve() -> None:
    curve = RangeTest([1e-3, 1e-2, 1e-1, 1.0, 10.0], [9.0] * 5, [3.0, 2.9, 2.0, 1.8, 4.0], 7)
    assert (curve.lowest, curve.steepest, curve.has_blown_up) == (1.0, 1e-1, True)  # 1.8 - 2.9 is the largest fall
    rising = RangeTest([1e-3, 1e-2, 1e-1], [9.0] * 3, [1.0, 2.0, 3.0], 3)
    assert (rising.lowest, rising.steepest, rising.has_blown_up) == (1e-3, None, False)


def test_the_command_leaves_its_figure_and_its_json_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    words = [word for word in TINY if not word.startswith(("page", "log_every"))]
    assert exit_of(lr_find.command, "lr-find", *words, "--low", "1e-3", "--high", "1", "--steps", "12") == 0
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["lr_find.json", "lr_find.png", "lr_find.svg"]
    content = json.loads((tmp_path / "lr_find.json").read_text())
    assert content["lrs"] == pytest.approx(rates(1e-3, 1, 12))
    assert len(content["losses"]) == len(content["smoothed"]) == 12
    assert (content["words"], content["config_lr"], content["batch_size"]) == (words, 0.001, 10)
    printed = capsys.readouterr().out
    assert "12 steps at rates from 1.0e-03 to 1.0e+00, the last one; the loss did not blow up." in printed
    assert "What a range test can't know: the best rate of a whole training." in printed
    assert f"cifar run -m {' '.join(words)} lr=" in printed
    assert "data.val_size=8\n" in printed
    svg = (tmp_path / "lr_find.svg").read_text()
    assert "learning rate" in svg
    assert "mathdefault" not in svg


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--low", "1", "--high", "0.1"], "--low 1 --high 0.1 is not possible: 0 < low < high < 1e6."),
        (["--steps", "3"], "--steps 3 is not possible: it takes 10 or more."),
        (["resnet18"], "'resnet18' is no word KEY=VALUE."),
        (["lr=-1"], "lr=-1.0 is not possible: it takes a positive number"),
        (["model.speed=1"], "speed"),
    ],
)
def test_a_mistake_is_one_message(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    assert message in str(exit_of(lr_find.command, "lr-find", *TINY, *words))
    assert not [*tmp_path.iterdir()]


def test_the_help_begins_with_examples(capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_of(lr_find.command, "lr-find", "--help") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[2].startswith("  cifar lr-find model=resnet18")
