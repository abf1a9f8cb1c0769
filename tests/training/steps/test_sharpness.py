"""SAM's and ASAM's steps against hand-written ones, and gradient clipping against torch's."""

import copy
import math
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn, optim
from torch.nn import functional as F
from torch.nn.utils import clip_grad_norm_

from cifar.base.errors import UserError
from cifar.experiment.building import build_optimizer, build_parts
from cifar.tracking.tracking import RunInfo
from cifar.training.devices.device import Device
from cifar.training.steps.kept import build_step
from cifar.training.steps.sharpness import SAM, SharpnessAwareStep
from cifar.training.steps.step import TrainingStep
from tests.conftest import QUIET, Compose
from tests.training.ranks import Net, batches, make

CPU = Device(torch.device("cpu"), "fp32")
RHO = 0.1
BASES: dict[str, Callable[..., optim.Optimizer]] = {
    "sgd": partial(optim.SGD, momentum=0.9, nesterov=True, weight_decay=1e-3),
    "adamw": partial(optim.AdamW, weight_decay=0.1),
}


def sam(model: nn.Module, base: str = "sgd", adaptive: bool = False) -> SAM:
    return SAM(model.parameters(), lr=0.05, rho=RHO, adaptive=adaptive, eta=0.01, base=BASES[base])


def loss_of(model: nn.Module, inputs: Tensor, labels: Tensor, parts: int) -> Tensor:
    """Return the mean loss of a batch whose parts go through the model one after another."""
    losses = [
        F.cross_entropy(model(part), targets, label_smoothing=0.1, reduction="sum")
        for part, targets in zip(inputs.tensor_split(parts), labels.tensor_split(parts), strict=True)
    ]
    return torch.stack(losses).sum() / len(labels)


def by_hand(base: str, adaptive: bool, parts: int) -> tuple[list[float], dict[str, Tensor]]:
    """Write algorithm 1 of arXiv:2010.01412 down for a few batches; return the losses and the state."""
    model = make()
    weights = [weight for name, weight in model.named_parameters() if "unused" not in name]
    optimizer, losses = BASES[base](model.parameters(), lr=0.05), []
    for inputs, labels in batches([12, 12, 7, 12]):
        loss = loss_of(model, inputs, labels, parts)
        grads = torch.autograd.grad(loss, weights)
        buffers = copy.deepcopy(dict(model.named_buffers()))
        old = [weight.detach().clone() for weight in weights]
        sizes = [weight.abs() + 0.01 if adaptive else torch.ones_like(weight) for weight in old]
        norm = math.sqrt(sum(float((size * grad).square().sum()) for size, grad in zip(sizes, grads, strict=True)))
        with torch.no_grad():
            for weight, size, grad in zip(weights, sizes, grads, strict=True):
                weight.add_(RHO * size**2 * grad / norm)
        optimizer.zero_grad()
        loss_of(model, inputs, labels, parts).backward()
        with torch.no_grad():
            for weight, value in zip(weights, old, strict=True):
                weight.copy_(value)
            for name, buffer in model.named_buffers():
                buffer.copy_(buffers[name])  # batch norm has seen the first pass only
        optimizer.step()
        losses.append(loss.item())
    return losses, model.state_dict()


@pytest.mark.parametrize("parts", [1, 3])
@pytest.mark.parametrize("adaptive", [False, True])
@pytest.mark.parametrize("base", BASES)
def test_a_step_is_the_one_written_by_hand(base: str, adaptive: bool, parts: int) -> None:
    model = make()
    step = build_step(model, sam(model, base, adaptive), CPU, key="", label_smoothing=0.1, accumulate=parts)
    assert isinstance(step, SharpnessAwareStep)
    losses = [float(step(inputs, labels)[0]) for inputs, labels in batches([12, 12, 7, 12])]
    expected, state = by_hand(base, adaptive, parts)
    assert losses == pytest.approx(expected, rel=1e-6)
    torch.testing.assert_close(model.state_dict(), state, rtol=1e-7, atol=1e-9)


def trained(device: Device, **options: Any) -> tuple[Net, Tensor]:
    """Take a few steps in float32 and return the net and what they measured."""
    model = make(torch.float32)
    step = build_step(model, sam(model), device, key="", **options)
    rows = []
    for number, (inputs, labels) in enumerate(batches([12] * 6, torch.float32)):
        if number == 0:
            step.find_scale(inputs, labels, len(labels))
        rows.append(step(inputs, labels))
    return model, torch.stack(rows)


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_autocast_changes_the_arithmetic_only(precision: str) -> None:
    expected, rows = trained(CPU)
    model, rows_too = trained(Device(torch.device("cpu"), precision))
    torch.testing.assert_close(rows_too[:, 0], rows[:, 0], rtol=0.02, atol=0.02)
    torch.testing.assert_close(rows_too[:, 2], rows[:, 2], rtol=0.1, atol=0.05)
    difference = sum(
        float((a - b).detach().norm()) for a, b in zip(model.parameters(), expected.parameters(), strict=True)
    )
    assert difference < 0.1


def test_an_overflow_in_fp16_leaves_the_weights_to_the_last_bit() -> None:
    model = make(torch.float32)
    step = build_step(model, sam(model), Device(torch.device("cpu"), "fp16"), key="")
    before = copy.deepcopy([*model.parameters()])
    ((inputs, labels),) = batches([12], torch.float32)
    step.find_scale(inputs, labels, len(labels))
    step.scaler.update(1e30)
    row = step(inputs, labels)
    assert not math.isfinite(row[2])
    assert all(torch.equal(*pair) for pair in zip(before, model.parameters(), strict=True))


def test_a_batch_that_is_not_finite_is_skipped() -> None:
    model = make(torch.float32)
    step = build_step(model, sam(model), CPU, key="", on_nonfinite="skip")
    before = copy.deepcopy(model.state_dict())
    ((inputs, labels),) = batches([12], torch.float32)
    step(inputs.fill_(math.inf), labels)
    torch.testing.assert_close(model.state_dict(), before, rtol=0, atol=0)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor")  # which torch's compiler causes itself
def test_a_compiled_model_gives_the_same() -> None:
    expected, rows = trained(CPU)
    model, rows_too = trained(Device(torch.device("cpu"), "fp32", compile=True))
    torch.testing.assert_close(rows_too, rows, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(model.state_dict(), expected.state_dict(), rtol=1e-3, atol=1e-4)


def test_it_can_not_be_recorded_and_says_why() -> None:
    model = make()
    with pytest.raises(UserError, match=r"^device\.graph=true is not possible with optimizer=sam, whose two passes"):
        build_step(model, sam(model), Device(torch.device("cuda"), "fp32", graph=True), key="")


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("optimizer.rho=0", "optimizer.rho=0 is not possible: it takes a positive number."),
        ("optimizer.adaptive=1", "optimizer.adaptive=1 is not possible: it takes true or false."),
        ("optimizer.base.momentum=2", "optimizer.base.momentum=2 is not possible: it takes a number from 0"),
        ("+optimizer.base.speed=2", "There is no key 'optimizer.base.speed'."),
        ("optimizer.base._partial_=false", "optimizer.base.params can't be left out."),
        ("+optimizer.speed=2", "There is no key 'optimizer.speed'."),
    ],
)
def test_a_mistake_is_one_message(compose: Compose, word: str, message: str) -> None:
    with pytest.raises(UserError) as error:
        build_parts(compose(*QUIET, "optimizer=sam", word), RunInfo("run", None, {}))
    assert message in str(error.value)


def test_groups_of_weights_have_values_of_their_own(compose: Compose) -> None:
    groups = 'optimizer.groups=[{names: ".*bias", weight_decay: 0, lr: 0.5}]'
    optimizer = build_optimizer(compose(*QUIET, "optimizer=sam", f"+{groups}"), Net())
    assert isinstance(optimizer, SAM)
    assert [group["lr"] for group in optimizer.base.param_groups] == [0.1, 0.5]
    assert [group["weight_decay"] for group in optimizer.base.param_groups] == [5e-4, 0]


@pytest.mark.parametrize("clip_norm", [0.05, 0.5, 1e6])
def test_clipping_is_torchs_and_the_norm_that_is_logged_is_that_before(clip_norm: float) -> None:
    model, reference = make(), make()
    step = TrainingStep(model, optim.SGD(model.parameters(), lr=0.5), CPU, clip_norm=clip_norm)
    optimizer = optim.SGD(reference.parameters(), lr=0.5)
    for inputs, labels in batches([12, 12, 7]):
        row = step(inputs, labels)
        optimizer.zero_grad()
        F.cross_entropy(reference(inputs), labels).backward()
        norm = clip_grad_norm_(reference.parameters(), clip_norm)
        optimizer.step()
        assert float(row[2]) == pytest.approx(float(norm), rel=1e-6)
    torch.testing.assert_close(model.state_dict(), reference.state_dict(), rtol=1e-12, atol=1e-14)


def test_without_clipping_nothing_changes_and_in_parts_the_sum_is_clipped() -> None:
    found = []
    for options in ({"clip_norm": 0.1}, {"clip_norm": 0.1, "accumulate": 2}):
        torch.manual_seed(5)
        model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 8 * 8, 10)).double()
        step = TrainingStep(model, optim.SGD(model.parameters(), lr=0.5), CPU, **options)  # type: ignore[arg-type]
        for inputs, labels in batches([12, 12]):
            step(inputs, labels)
        found.append(model.state_dict())
    torch.testing.assert_close(found[0], found[1], rtol=1e-10, atol=1e-12)
