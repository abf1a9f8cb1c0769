"""A step that is recorded, warmed up, or kept from an earlier run trains as any other."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn, optim
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from cifar.base.errors import UserError
from cifar.experiment.run import run
from cifar.training.devices.device import Device, set_up_device
from cifar.training.optimizers import Muon
from cifar.training.steps import kept
from cifar.training.steps.kept import build_step, keep
from cifar.training.steps.recorded import RecordedStep
from cifar.training.steps.step import TrainingStep
from tests.conftest import QUIET, Compose, read_metrics, read_summary
from tests.tiny_model import tiny

CPU = Device(torch.device("cpu"), "fp32")
RECORDING = Device(torch.device("cpu"), "fp32", graph=True)  # whose recording is a call
HAS_GPU = torch.cuda.is_available()
LRS = [2**-3, 2**-4, 2**-6, 2**-5, 2**-7]  # which float32 holds exactly

MAKE_OPTIMIZER: dict[str, Callable[..., optim.Optimizer]] = {
    "adam": lambda weights: optim.Adam(weights, lr=1.0, fused=True),
    "sgd": lambda weights: optim.SGD(weights, lr=1.0, momentum=0.9, nesterov=True, weight_decay=1e-3, fused=True),
    "muon": lambda weights: Muon(weights, lr=1.0, normalise=True, others={"momentum": 0.5}),
}


@pytest.fixture(autouse=True)
def nothing_kept() -> Iterator[None]:
    kept.KEPT.clear()
    yield
    kept.KEPT.clear()


def make_step(kind: type[TrainingStep], optimizer: str = "sgd", device: Device = CPU, **options: Any) -> TrainingStep:
    torch.manual_seed(0)
    is_gpu = device.torch_device.type == "cuda"  # where a recording draws other random numbers
    model = tiny(dropout=0.0 if is_gpu else 0.1).to(device.torch_device)
    return kind(model, MAKE_OPTIMIZER[optimizer](model.parameters()), device, **options)


def batch(size: int, seed: int = 0, device: str = "cpu") -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(size, 3, 32, 32, generator=generator).to(device), (torch.arange(size) % 10).to(device)


def train(step: TrainingStep, device: str = "cpu") -> list[Tensor]:
    """Return what five steps give, the third of which has fewer images."""
    rows = []
    for number, lr in enumerate(LRS):
        step.set_lrs([lr] * len(step.optimizer.param_groups))
        rows.append(step(*batch(6 if number == 2 else 8, number, device)))
    return rows


def state(step: TrainingStep) -> dict[str, Any]:
    """Return all that a step may change, copied."""
    return {
        "weights": [value.clone() for value in step.model.state_dict().values()],
        "gradients": [weight.grad for weight in step.model.parameters()],
        "optimizer": [{key: torch.as_tensor(value).clone() for key, value in entry.items()}
                      for entry in step.optimizer.state.values()],
        "lr": [float(group["lr"]) for group in step.optimizer.param_groups],
        "rng": torch.get_rng_state(),
    }  # fmt: skip


@pytest.mark.parametrize("optimizer", MAKE_OPTIMIZER)
@pytest.mark.parametrize("accumulate", [1, 3])
def test_a_recorded_step_equals_the_plain_one_to_the_last_bit(optimizer: str, accumulate: int) -> None:
    options: dict[str, Any] = {"label_smoothing": 0.1, "accumulate": accumulate}
    expected = train(plain := make_step(TrainingStep, optimizer, **options))
    found = train(recorded := make_step(RecordedStep, optimizer, RECORDING, **options))
    assert len({tuple(row.tolist()) for row in found}) == 5  # every step's results are its own
    torch.testing.assert_close(found, expected, rtol=0, atol=0)
    for one, other in zip(recorded.model.state_dict().values(), plain.model.state_dict().values(), strict=True):
        assert torch.equal(one, other)


def test_learning_rates_and_weights_keep_their_place_and_each_shape_is_recorded_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    record, num_recordings = Device.record, 0

    def count(device: Device, work: Callable[[], Tensor]) -> tuple[Tensor, Callable[[], object]]:
        nonlocal num_recordings
        num_recordings += 1
        return record(device, work)

    monkeypatch.setattr(Device, "record", count)
    step = make_step(RecordedStep, "adam", RECORDING)

    def places() -> list[int]:
        lrs = [group["lr"] for group in step.optimizer.param_groups]
        return [tensor.data_ptr() for tensor in [*step.model.state_dict().values(), *lrs]]

    before = places()
    train(step)
    addresses = [tensor.data_ptr() for tensor in step.optimizer_state()]
    train(step)
    assert places() == before
    assert [tensor.data_ptr() for tensor in step.optimizer_state()] == addresses
    assert num_recordings == 2


@pytest.mark.parametrize(("kind", "device"), [(TrainingStep, CPU), (RecordedStep, RECORDING)])
@pytest.mark.parametrize("num_steps", [0, 5])
@pytest.mark.parametrize("optimizer", MAKE_OPTIMIZER)
def test_a_warm_up_changes_nothing(kind: type[TrainingStep], device: Device, num_steps: int, optimizer: str) -> None:
    step = make_step(kind, optimizer, device)
    for number in range(num_steps):
        step(*batch(8, number))
    step.optimizer.zero_grad()
    before = state(step)
    torch.nn.functional.dropout(torch.ones(3))
    torch.set_rng_state(before["rng"])
    assert step.warm_up(*batch(4)) > 0
    after = state(step)
    if kind is RecordedStep and not num_steps:  # its place has to stay
        assert all(not value.any() for entry in after["optimizer"] for value in entry.values())
        after["optimizer"] = []
    torch.testing.assert_close(after, before, rtol=0, atol=0)


def test_what_is_saved_has_numbers_and_a_recorded_step_goes_on_from_it() -> None:
    uncut, begun = (make_step(RecordedStep, "adam", RECORDING) for _ in range(2))
    torch.manual_seed(0)
    expected = [*train(uncut), *train(uncut)]
    torch.manual_seed(0)
    first = train(begun)
    saved = begun.optimizer_state_dict()
    assert [group["lr"] for group in saved["param_groups"]] == [pytest.approx(LRS[-1])]
    assert {type(group["lr"]) for group in saved["param_groups"]} == {float}
    rng = torch.get_rng_state()
    resumed = make_step(RecordedStep, "adam", RECORDING)
    torch.set_rng_state(rng)
    resumed.model.load_state_dict(begun.model.state_dict())
    resumed.load_optimizer(saved, {})
    torch.testing.assert_close([*first, *train(resumed)], expected, rtol=0, atol=0)


def test_a_kept_step_begins_anew_with_the_next_runs_weights_and_rates() -> None:
    def build(seed: int, lr: float, key: str = "key", is_resumed: bool = False) -> TrainingStep:
        torch.manual_seed(seed)
        model = tiny()
        torch.manual_seed(0)
        optimizer = optim.SGD(model.parameters(), lr=lr, momentum=0.9)
        return build_step(model, optimizer, RECORDING, key=key, is_resumed=is_resumed)

    first = build(0, 0.1)
    train(first)
    keep(first, "key")
    second = build(1, 0.2)
    assert second is first
    assert [float(group["lr"]) for group in second.optimizer.param_groups] == [pytest.approx(0.2)]
    found = train(second)
    kept.KEPT.clear()
    alone = build(1, 0.2)
    assert alone is not first
    torch.testing.assert_close(found, train(alone), rtol=0, atol=0)
    keep(alone, "key")
    assert build(1, 0.2, is_resumed=True) is not alone
    keep(alone, "key")
    assert build(1, 0.2, key="another") is not alone
    assert not kept.KEPT


class Reads(TorchDispatchMode):
    """Counts the values that are read from tensors, for which a GPU would have to be waited for."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.count = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += function is torch.ops.aten._local_scalar_dense.default
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize(("kind", "device"), [(TrainingStep, CPU), (RecordedStep, RECORDING)])
@pytest.mark.parametrize("optimizer", MAKE_OPTIMIZER)
def test_no_step_reads_a_value(kind: type[TrainingStep], device: Device, optimizer: str) -> None:
    step = make_step(kind, optimizer, device)
    train(step)
    with Reads() as reads:
        train(step)
    assert reads.count == 0
    with Reads() as reads:
        train(make_step(TrainingStep, optimizer, on_nonfinite="skip"))
    assert reads.count >= len(LRS)


@pytest.mark.parametrize("accumulate", [1, 3])
@pytest.mark.parametrize("smoothing", [{}, {"label_smoothing": 0.3}])
def test_a_step_measures_what_torch_does_before_the_weights_change(accumulate: int, smoothing: dict[str, Any]) -> None:
    step = make_step(TrainingStep, accumulate=accumulate, **smoothing)
    step.model.eval()  # parts then give what the whole batch does
    inputs, labels = batch(8)
    logits = step.model(inputs)
    labels = torch.where(torch.arange(8) < 3, logits.argmax(1), (logits.argmax(1) + labels % 9 + 1) % 10)
    loss = torch.nn.functional.cross_entropy(logits, labels, **smoothing)
    gradient = torch.autograd.grad(loss, [*step.model.parameters()])
    norm = torch.cat([part.flatten() for part in gradient]).norm()
    found = step(inputs, labels)
    torch.testing.assert_close(found, torch.stack([loss.detach(), torch.tensor(3.0), norm, torch.tensor(1.0)]))


@pytest.mark.parametrize("accumulate", [1, 2])
@pytest.mark.parametrize("smoothing", [0.0, 0.3])
def test_mixed_labels_weigh_the_losses_of_both_classes_and_the_larger_share_counts(
    accumulate: int, smoothing: float
) -> None:
    step = make_step(TrainingStep, accumulate=accumulate, label_smoothing=smoothing)
    step.model.eval()  # parts then give what the whole batch does
    inputs, _ = batch(8)
    logits = step.model(inputs)
    best, worst = logits.argmax(1), logits.argmin(1)
    share = torch.tensor([0.7, 0.7, 0.2, 0.2, 0.2, 1.0, 0.0, 0.6])
    labels = (
        torch.zeros(8, 10).scatter_(1, best[:, None], share[:, None]).scatter_(1, worst[:, None], 1 - share[:, None])
    )
    own, other = (F.cross_entropy(logits, each, reduction="none", label_smoothing=smoothing) for each in (best, worst))
    loss = (share * own + (1 - share) * other).mean()
    norm = torch.cat([part.flatten() for part in torch.autograd.grad(loss, [*step.model.parameters()])]).norm()
    found = step(inputs, labels)
    torch.testing.assert_close(found, torch.stack([loss.detach(), torch.tensor(4.0), norm, torch.tensor(1.0)]))


def test_a_recorded_step_takes_mixed_labels_and_plain_ones() -> None:
    inputs, labels = batch(8)
    shares = F.one_hot(labels, 10).float() * 0.7 + F.one_hot(labels.roll(1), 10).float() * 0.3
    rows = []
    for kind, device in ((TrainingStep, CPU), (RecordedStep, RECORDING)):
        step = make_step(kind, device=device)
        rows.append(torch.stack([step(inputs, given) for given in (labels, shares, labels, shares.roll(1, 0))]))
    assert torch.equal(*rows)


def test_an_ordinary_step_is_not_kept() -> None:
    keep(make_step(TrainingStep), "key")
    assert not kept.KEPT


def test_runs_of_one_process_share_a_compiled_step_and_leak_nothing(
    tmp_path: Path, compose: Compose, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiled: list[nn.Module] = []

    class Compiled(nn.Module):
        def __init__(self, model: nn.Module) -> None:
            super().__init__()
            self.inner, self.calls = model, 0

        def forward(self, inputs: Tensor) -> Tensor:
            if not self.calls:
                compiled.append(self.inner)
            self.calls += 1
            outputs: Tensor = self.inner(inputs)
            return outputs

    monkeypatch.setattr(torch, "compile", Compiled)

    def losses(name: str, *words: str) -> list[float]:
        (tmp_path / name).mkdir()
        run(compose(*QUIET, "device.compile=true", *words), tmp_path / name)
        return [metrics["train/loss"] for metrics in read_metrics(tmp_path / name) if "train/loss" in metrics]

    together = [losses(f"{number}", *words) for number, words in enumerate((["seed=0"], ["seed=1"], ["lr=0.01"]))]
    assert len(compiled) == 1
    for number, words in enumerate((["seed=0"], ["seed=1"], ["lr=0.01"])):
        kept.KEPT.clear()
        assert losses(f"alone{number}", *words) == together[number]
    assert losses("other", "label_smoothing=0.1") != together[0]
    assert len(compiled) == 5


def test_the_summary_has_the_warm_up_apart(tmp_path: Path, compose: Compose, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "compile", lambda model: model)
    for name, word in (("plain", "device.compile=false"), ("warm", "device.compile=true")):
        (tmp_path / name).mkdir()
        run(compose(*QUIET, word), tmp_path / name)
    plain, warm = (read_summary(tmp_path / name) for name in ("plain", "warm"))
    assert warm["test_loss"] == plain["test_loss"]
    assert warm["warmup_seconds"] > 0
    assert "warmup_seconds" not in plain


@pytest.mark.parametrize(
    ("optimizer", "options", "message"),
    [
        (lambda weights: optim.SGD(weights, lr=0.1), {"on_nonfinite": "skip"}, "on_nonfinite=skip, which waits"),
        (lambda weights: optim.Adagrad(weights), {}, "with Adagrad: there is Adam, AdamW, SGD, Muon"),
        (lambda weights: optim.SGD(weights, lr=0.1, momentum=0.9, dampening=0.5), {}, "with SGD and dampening"),
    ],
)
def test_what_can_not_be_recorded_is_refused(
    optimizer: Callable[..., optim.Optimizer], options: dict[str, Any], message: str
) -> None:
    model = tiny()
    with pytest.raises(UserError, match=message):
        RecordedStep(model, optimizer(model.parameters()), RECORDING, **options)


def test_recordings_need_cuda() -> None:
    with pytest.raises(UserError, match=r"device\.graph=true is not possible on cpu: CUDA graphs need device=cuda"):
        set_up_device("cpu", "fp32", None, None, compile=False, threads=None, graph=True)


@pytest.mark.parametrize("deterministic", [True, False])
def test_deterministic_kernels_are_asked_for(deterministic: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", "")
    set_up_device("cpu", "fp32", None, None, compile=False, threads=None, deterministic=deterministic)
    assert torch.are_deterministic_algorithms_enabled() == deterministic
    assert torch.backends.cudnn.benchmark != deterministic
    set_up_device("cpu", "fp32", None, None, compile=False, threads=None)


def on_gpu(test: Any) -> Any:
    return pytest.mark.gpu(pytest.mark.skipif(not HAS_GPU, reason="needs a CUDA GPU")(test))


@on_gpu
@pytest.mark.parametrize("optimizer", MAKE_OPTIMIZER)
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_recorded_step_on_a_gpu_equals_the_plain_one(optimizer: str, precision: str) -> None:
    expected = train(make_step(TrainingStep, optimizer, Device(torch.device("cuda"), precision)), "cuda")
    recording = Device(torch.device("cuda"), precision, graph=True)
    found = train(make_step(RecordedStep, optimizer, recording), "cuda")
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3)


@on_gpu
@pytest.mark.filterwarnings("ignore:Synchronization debug mode")  # which warns of itself
@pytest.mark.parametrize("kind", [TrainingStep, RecordedStep])
@pytest.mark.parametrize("optimizer", MAKE_OPTIMIZER)
def test_no_step_on_a_gpu_waits_for_it(kind: type[TrainingStep], optimizer: str) -> None:
    device = Device(torch.device("cuda"), "bf16", graph=kind is RecordedStep)
    step = make_step(kind, optimizer, device)
    batches = [batch(8, number, "cuda") for number in range(5)]
    step.warm_up(*batches[0])
    torch.cuda.set_sync_debug_mode("error")
    try:
        for inputs, labels in batches:
            step.set_lrs([0.1] * len(step.optimizer.param_groups))
            step(inputs, labels)
    finally:
        torch.cuda.set_sync_debug_mode("default")


@on_gpu
def test_a_recorded_run_on_a_gpu_equals_an_ordinary_one_and_the_next_records_nothing(
    tmp_path: Path, compose: Compose, monkeypatch: pytest.MonkeyPatch
) -> None:
    def losses(name: str, *words: str) -> list[float]:
        (tmp_path / name).mkdir()
        cfg = compose(*QUIET, "device.name=cuda", "device.precision=fp32", "+model.dropout=0", *words)
        run(cfg, tmp_path / name)
        return [metrics["train/loss"] for metrics in read_metrics(tmp_path / name) if "train/loss" in metrics]

    plain = [losses(f"plain{seed}", f"seed={seed}") for seed in (0, 1)]
    recorded = [losses("recorded0", "seed=0", "device.graph=true")]
    monkeypatch.setattr(Device, "record", lambda *_: pytest.fail("recorded again"))
    recorded.append(losses("recorded1", "seed=1", "device.graph=true"))
    assert recorded[0] == pytest.approx(plain[0], rel=1e-3)
    assert recorded[1] == pytest.approx(plain[1], rel=1e-3)
