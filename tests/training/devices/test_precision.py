"""fp16 with a factor on the loss: found at the first batch, halved when the gradient overflows, saved and resumed."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn, optim

from cifar.base.errors import DivergedError, UserError
from cifar.base.sealed import read_checkpoint
from cifar.experiment.run import run
from cifar.training.devices import device
from cifar.training.devices.device import Device
from cifar.training.measures.divergence import MAX_IN_A_ROW, Watch
from cifar.training.measures.tallies import Step
from cifar.training.optimizers import Muon
from cifar.training.schedules import Constant
from cifar.training.steps.recorded import RecordedStep
from cifar.training.steps.step import TrainingStep
from cifar.training.trainer import Trainer
from tests.conftest import QUIET, Compose, read_metrics, read_summary
from tests.tiny_model import tiny
from tests.training.test_trainer import make_loader

FP16 = Device(torch.device("cpu"), "fp16")
FP32 = Device(torch.device("cpu"), "fp32")


class Factor(nn.Module):
    """A network whose output is scaled, and with it the gradient, within fp16's range or beyond."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor
        self.linear = nn.Linear(3 * 32 * 32, 10)

    def forward(self, inputs: Tensor) -> Tensor:
        logits: Tensor = self.factor * self.linear(inputs.flatten(1)).float()
        return logits


class Steep(torch.autograd.Function):
    """The identity, whose gradient is larger by a factor, in the precision that it comes in."""

    @staticmethod
    def forward(ctx: Any, inputs: Tensor, factor: float) -> Tensor:
        ctx.factor = factor
        return inputs.clone()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return grad * ctx.factor, None


class Overflowing(nn.Module):
    """The tiny network, whose scaled gradient overflows in fp16, at every step or at some calls only."""

    def __init__(self, factor: float, calls: set[int] | None = None) -> None:
        super().__init__()
        torch.manual_seed(0)
        *features, self.head = tiny(dropout=0.0).children()
        self.features, self.factor, self.calls, self.number = nn.Sequential(*features), factor, calls, 0

    def forward(self, inputs: Tensor) -> Tensor:
        self.number += 1
        is_steep = self.calls is None or self.number in self.calls
        features = Steep.apply(self.features(inputs).half(), self.factor if is_steep else 1.0)
        logits: Tensor = self.head(features)
        return logits


def batch(size: int = 10) -> tuple[Tensor, Tensor]:
    return torch.randn(size, 3, 32, 32, generator=torch.Generator().manual_seed(0)), torch.arange(size) % 10


def make_step(model: nn.Module, device: Device = FP16, **options: Any) -> TrainingStep:
    return TrainingStep(model, optim.SGD(model.parameters(), lr=0.01, momentum=0.9), device, **options)


def test_gradients_too_small_for_fp16_are_kept() -> None:
    torch.manual_seed(0)
    model = Factor(1e-7)

    def gradient(step: TrainingStep) -> Tensor:
        step(*batch())
        assert model.linear.weight.grad is not None
        return model.linear.weight.grad.clone()

    expected = gradient(make_step(model, FP32))
    torch.testing.assert_close(gradient(make_step(model)), expected, rtol=0.05, atol=1e-9)
    unscaled = make_step(model)
    unscaled.scaler = torch.amp.GradScaler("cpu", enabled=False)
    assert not gradient(unscaled).any()


@pytest.mark.parametrize("optimizer", [
    lambda weights: optim.SGD(weights, lr=0.1, momentum=0.9, fused=True),
    lambda weights: optim.Adam(weights, lr=0.1, fused=True),
    lambda weights: optim.AdamW(weights, lr=0.1),
    lambda weights: Muon(weights, lr=0.1),
])  # fmt: skip
@pytest.mark.parametrize("accumulate", [1, 3])
def test_a_step_that_overflows_changes_no_weight_and_halves_the_scale(optimizer: Any, accumulate: int) -> None:
    model = Overflowing(1e4)
    step = TrainingStep(model, optimizer(model.parameters()), FP16, accumulate=accumulate)
    before = [weight.detach().clone() for weight in model.parameters()]
    scales = []
    while (measured := Step.of(step(*batch()).tolist(), 10)).is_overflow:
        scales.append(measured.scale)
        assert all(torch.equal(one, other) for one, other in zip(before, model.parameters(), strict=True))
    assert scales == [2.0**16 / 2**number for number in range(len(scales))]
    assert 2 <= len(scales) < 16
    assert measured.scale == scales[-1] / 2
    assert measured.is_finite
    assert not torch.equal(before[0], next(model.parameters()))


def test_the_first_scale_is_found_at_the_first_batch_and_nothing_else_changes() -> None:
    model = Overflowing(1e4)
    step = make_step(model)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    step.find_scale(*batch(), 10)
    assert torch.equal(torch.rand(3), expected)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert not step.optimizer.state
    scaling = step.scaler.state_dict()
    assert scaling["scale"] in (2**13, 2**10, 2**7)
    assert scaling["backoff_factor"] == 0.5
    assert scaling["_growth_tracker"] == 0
    measured = Step.of(step(*batch()).tolist(), 10)
    assert (measured.is_finite, measured.scale) == (True, scaling["scale"])
    plain = make_step(tiny(), FP32)
    plain.find_scale(*batch(), 10)
    assert plain.scaler.state_dict() == {}


def test_a_step_without_fp16_is_torchs_own_to_the_last_bit() -> None:
    models = []
    for _ in range(2):
        torch.manual_seed(0)
        models.append(tiny(dropout=0.0))
    step = make_step(models[0], FP32)
    optimizer = optim.SGD(models[1].parameters(), lr=0.01, momentum=0.9)
    for _ in range(3):
        loss, _, _, scale = step(*batch()).tolist()
        optimizer.zero_grad()
        expected = nn.functional.cross_entropy(models[1](batch()[0]), batch()[1])
        expected.backward()
        optimizer.step()
        assert (loss, scale) == (expected.item(), 1)
    for one, other in zip(models[0].parameters(), models[1].parameters(), strict=True):
        assert torch.equal(one, other)


def train(model: nn.Module, **options: Any) -> tuple[Trainer, list[dict[str, float]]]:
    logged: list[dict[str, float]] = []
    trainer = Trainer(
        make_step(model, **options), Constant(), make_loader(200), None, epochs=1, log_every=1,
        log_metrics=lambda metrics, step, epoch: logged.append(metrics),
    )  # fmt: skip
    return trainer, logged


@pytest.mark.parametrize("on_nonfinite", ["stop", "skip"])
def test_an_overflow_in_between_is_no_divergence_and_counts_in_no_mean(on_nonfinite: str) -> None:
    trainer, logged = train(Overflowing(1e9, {5, 6, 12}), on_nonfinite=on_nonfinite)
    trainer.fit()
    losses = [metrics["train/loss"] for metrics in logged if "train/loss" in metrics]
    assert [number for number, loss in enumerate(losses, start=1) if loss != loss] == [4, 5, 11]  # one call found 2**16
    assert trainer.watch.num_skipped == 0
    assert "skipped_steps" not in trainer.progress()
    assert trainer.train_step.scaler.get_scale() == 2**13
    assert trainer.counters.train_loss == pytest.approx(sum(loss for loss in losses if loss == loss) / 17)


@pytest.mark.parametrize("on_nonfinite", ["stop", "skip"])
def test_overflows_that_do_not_end_are_a_divergence(on_nonfinite: str) -> None:
    trainer, _ = train(Overflowing(1e9, {*range(5, 100)}), on_nonfinite=on_nonfinite)
    advice = r".* device\.precision=bf16 or fp32 holds larger ones\.$"
    message = rf"{MAX_IN_A_ROW} steps in a row were skipped; the norm of the gradient of the loss times 128 is \w+ at"
    with pytest.raises(DivergedError, match=message + " step 13 " + advice):
        trainer.fit()


def test_a_gradient_beyond_fp16_even_unscaled_is_a_divergence() -> None:
    trainer, _ = train(Overflowing(1e9))
    with pytest.raises(
        DivergedError, match=r"the norm of the gradient is \w+ at step 1 .* fp16 holds numbers up to 65504 only"
    ):
        trainer.fit()
    watch = Watch("stop", "bf16", lambda step: 0.1, 10)
    with pytest.raises(DivergedError) as error:
        watch.sort_out([Step(1.0, 0, torch.inf, 1.0, 10)], 0)
    assert "fp16" not in str(error.value)


def test_fp16_runs_and_resumes_to_the_last_bit(tmp_path: Path, compose: Compose) -> None:
    words = [*QUIET, "device.precision=fp16", "optimizer=sgd", "log_every=1"]
    for name in ("uncut", "cut"):
        (tmp_path / name).mkdir()
    run(compose(*words, "epochs=2"), tmp_path / "uncut")
    run(compose(*words, "epochs=1"), tmp_path / "cut")
    checkpoint = read_checkpoint(tmp_path / "cut" / "checkpoint.pt")
    assert checkpoint["scaler"]["_growth_tracker"] == 8
    run(compose(*words, "epochs=2"), tmp_path / "cut", checkpoint=checkpoint)
    one, other = (read_checkpoint(tmp_path / name / "checkpoint.pt") for name in ("uncut", "cut"))
    assert one["scaler"] == other["scaler"]
    for key, value in one["model"].items():
        assert torch.equal(value, other["model"][key]), key
    lines = [
        [line["train/loss"] for line in read_metrics(tmp_path / name) if "train/loss" in line]
        for name in ("uncut", "cut")
    ]
    assert lines[0] == lines[1]
    assert read_summary(tmp_path / "cut")["status"] == "completed"


def test_fp16_can_not_be_recorded() -> None:
    model = tiny()
    device = Device(torch.device("cpu"), "fp16", graph=True)
    with pytest.raises(
        UserError, match=r"graph=true is not possible with device\.precision=fp16, .*precision=bf16 can"
    ):
        RecordedStep(model, optim.SGD(model.parameters(), lr=0.1), device)


@pytest.mark.parametrize(
    ("name", "precision", "has_instructions", "expected"),
    [
        ("cpu", "auto", True, "fp32"),
        ("cpu", "bf16_or_fp32", True, "bf16"),
        ("cpu", "bf16_or_fp32", False, "fp32"),
        ("mps", "bf16_or_fp32", True, "fp32"),
        ("cuda", "bf16_or_fp32", False, "bf16"),
        ("cuda", "auto", False, "bf16"),
        ("cuda", "fp16", True, "fp16"),
    ],
)
def test_bf16_is_taken_where_the_hardware_has_it(
    monkeypatch: pytest.MonkeyPatch, name: str, precision: str, has_instructions: bool, expected: str
) -> None:
    monkeypatch.setattr(device, "multiplies_bf16", lambda: has_instructions)
    assert device.choose_precision(name, precision) == expected


@pytest.mark.parametrize("instruction", ["avx512_bf16", "amx_bf16", "avx2"])
def test_torch_and_linux_say_the_same_of_bf16(monkeypatch: pytest.MonkeyPatch, instruction: str) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {instruction: True, "avx": True}, raising=False)
    assert device.multiplies_bf16() == (instruction != "avx2")
    monkeypatch.delattr(torch.cpu, "get_capabilities")
    monkeypatch.setattr(device, "cpu_info", lambda key: f"avx {instruction} fma" if key == "flags" else "")
    assert device.multiplies_bf16() == (instruction != "avx2")


def test_linux_knows_this_processor() -> None:
    flags = device.cpu_info("flags").split()
    assert ("avx512f" in flags) == (torch.backends.cpu.get_cpu_capability() == "AVX512")
    assert device.cpu_info("nothing of that name") == ""
