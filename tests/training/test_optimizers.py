"""Muon against the exact polar factor and torch's SGD, and parameter groups from the configuration."""

import inspect
import math
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf
from torch import Tensor, nn, optim
from torch.optim._muon import _zeropower_via_newtonschulz

from cifar.base.errors import UserError
from cifar.experiment.building import build_optimizer
from cifar.experiment.python import compose as compose_words
from cifar.models.resnet_he import resnet18
from cifar.training.optimizers import Muon, orthogonalise, parameter_groups, refuse_unknown
from cifar.training.steps.sharpness import SAM
from tests.conftest import ROOT, Compose, write_own_parts
from tests.tiny_model import tiny


def polar(matrices: Tensor) -> Tensor:
    """Return U Vᵀ of every matrix."""
    left, _, right = torch.linalg.svd(matrices.double(), full_matrices=False)
    factor: Tensor = left @ right
    return factor


@pytest.mark.parametrize("shape", [(3, 16, 40), (2, 40, 16), (1, 24, 24)])
def test_orthogonalise_comes_close_to_the_polar_factor(shape: tuple[int, int, int]) -> None:
    torch.manual_seed(0)
    matrices = torch.randn(shape)
    result = orthogonalise(matrices, iterations=5)
    singular = torch.linalg.svdvals(result)
    assert float(singular.min()) > 0.6
    assert float(singular.max()) < 1.3
    cosine = (result * polar(matrices)).sum((1, 2)) / (result.norm(dim=(1, 2)) * polar(matrices).norm(dim=(1, 2)))
    assert float(cosine.min()) > 0.98
    for one, matrix in zip(result, matrices, strict=True):  # a batch is no more than its matrices
        torch.testing.assert_close(one[None], orthogonalise(matrix[None], iterations=5), rtol=1e-4, atol=1e-5)


def test_the_iteration_is_the_polynomial_of_the_singular_values() -> None:
    torch.manual_seed(0)
    matrix = torch.randn(1, 6, 9, dtype=torch.float64)
    left, values, right = torch.linalg.svd(matrix, full_matrices=False)
    values = values / matrix.norm()
    for _ in range(3):
        values = 3.4445 * values - 4.7750 * values**3 + 2.0315 * values**5
    expected = left @ torch.diag_embed(values) @ right
    torch.testing.assert_close(orthogonalise(matrix, iterations=3), expected, rtol=1e-6, atol=1e-6)


def take_steps(model: nn.Module, optimizer: optim.Optimizer, num_steps: int = 3) -> list[Tensor]:
    torch.manual_seed(0)
    for _ in range(num_steps):
        optimizer.zero_grad()
        model(torch.randn(4, 3, 32, 32)).square().sum().backward()
        optimizer.step()
    return [parameter.detach().clone() for parameter in model.parameters()]


def test_what_is_no_filter_is_trained_by_sgd() -> None:
    models = []
    for _ in range(2):
        torch.manual_seed(1)
        models.append(tiny().eval())
    rest = [[weight for weight in model.parameters() if weight.ndim != 4] for model in models]
    values = {"lr": 0.05, "momentum": 0.8, "weight_decay": 0.01}
    ours = take_steps(models[0], Muon(rest[0], lr=1.0, others=values))
    theirs = take_steps(models[1], optim.SGD(rest[1], lr=0.05, momentum=0.8, weight_decay=0.01, nesterov=True))
    torch.testing.assert_close(ours, theirs)


def test_a_filters_step_is_the_orthogonalised_nesterov_momentum() -> None:
    torch.manual_seed(0)
    weight = nn.Parameter(torch.randn(8, 3, 2, 2))
    optimizer = Muon([weight], lr=0.1, momentum=0.5, iterations=4)
    buffer = torch.zeros_like(weight)
    for _ in range(3):
        before, grad = weight.detach().clone(), torch.randn_like(weight)
        weight.grad = grad.clone()
        optimizer.step()
        buffer = 0.5 * buffer + grad
        update = orthogonalise((grad + 0.5 * buffer).view(1, 8, 12), iterations=4).view_as(weight)
        torch.testing.assert_close(weight.detach(), before - 0.1 * update)


def test_normalised_filters_have_the_norm_of_airbench_before_the_step() -> None:
    torch.manual_seed(0)
    weight = nn.Parameter(torch.randn(8, 3, 2, 2))
    weight.grad = torch.randn_like(weight)
    before = weight.detach() * 8**0.5 / weight.detach().norm()
    update = orthogonalise((1.5 * weight.grad).view(1, 8, 12), iterations=3).view_as(weight)
    Muon([weight], lr=0.1, momentum=0.5, normalise=True).step()
    torch.testing.assert_close(weight.detach(), before - 0.1 * update)


def test_a_tall_matrix_takes_larger_steps() -> None:
    weight = nn.Parameter(torch.zeros(32, 2, 2, 2))
    weight.grad = torch.randn_like(weight)
    Muon([weight], lr=1.0, momentum=0.0).step()
    expected = 2 * orthogonalise(weight.grad.view(1, 32, 8), iterations=3).view_as(weight)
    torch.testing.assert_close(weight.detach(), -expected)


@pytest.mark.parametrize("shape", [(8, 12), (12, 8)])
@pytest.mark.parametrize("weight_decay", [0.0, 0.1, 3.0])
def test_muon_is_torchs_muon(shape: tuple[int, int], weight_decay: float, monkeypatch: pytest.MonkeyPatch) -> None:
    def in_bfloat16(matrices: Tensor, iterations: int, precision: str) -> Tensor:
        coefficients, matrices = (3.4445, -4.7750, 2.0315), (1 - 0.95) * matrices  # theirs is a mean, ours a sum
        return torch.stack([_zeropower_via_newtonschulz(matrix, coefficients, iterations, 1e-7) for matrix in matrices])

    monkeypatch.setattr("cifar.training.optimizers.orthogonalise", in_bfloat16)
    torch.manual_seed(0)
    start = torch.randn(shape, dtype=torch.float64)
    ours, theirs = nn.Parameter(start.view(shape[0], -1, 2, 2).clone()), nn.Parameter(start.clone())
    options: dict[str, Any] = {"lr": 0.1, "momentum": 0.95, "weight_decay": weight_decay}
    optimizer, reference = Muon([ours], iterations=5, **options), optim.Muon([theirs], **options)
    for _ in range(5):
        theirs.grad = torch.randn_like(theirs)
        ours.grad = theirs.grad.view_as(ours).clone()
        optimizer.step()
        reference.step()
    torch.testing.assert_close(ours.detach().view(shape), theirs.detach(), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("normalise", [True, False])
@pytest.mark.parametrize("weight_decay", [1e-12, 1e-3, 0.5])
def test_a_filters_weight_decay_keeps_its_size(weight_decay: float, normalise: bool) -> None:
    torch.manual_seed(0)
    weight = nn.Parameter(torch.randn(8, 3, 2, 2, dtype=torch.float64))
    weight.grad = torch.zeros_like(weight)
    before = weight.detach().clone()
    if normalise:
        before *= 8**0.5 / before.norm()
    Muon([weight], lr=0.02, weight_decay=weight_decay, normalise=normalise).step()
    torch.testing.assert_close(weight.detach(), before * (1 - 0.02 * weight_decay), rtol=1e-15, atol=0)


def test_the_shipped_defaults_of_muon() -> None:
    shipped = OmegaConf.load(ROOT / "conf" / "optimizer" / "muon.yaml")
    assert isinstance(values := OmegaConf.to_container(shipped, resolve=True), dict)
    assert values["optimizer"] == {
        "_target_": "cifar.training.optimizers.Muon",
        "lr": 0.02,
        "momentum": 0.95,
        "weight_decay": 0.0,
        "iterations": 5,
        "normalise": False,
        "precision": "auto",
        "others": {"lr": 0.05, "momentum": 0.9, "weight_decay": 5e-4},
    }
    defaults = {name: entry.default for name, entry in inspect.signature(Muon).parameters.items()}
    assert (defaults["momentum"], defaults["weight_decay"], defaults["iterations"]) == (0.6, 0.0, 3)
    assert defaults["precision"] == "auto"


@pytest.mark.parametrize("has_products", [True, False])
@pytest.mark.parametrize(
    ("precision", "is_short"), [("auto", [False, False]), ("fp32", [False, False]), ("bf16", [True, True]),
                                ("bf16_or_fp32", [False, True])]
)  # fmt: skip
def test_newton_schulz_is_computed_in_the_precision_that_was_asked_for(
    precision: str, is_short: list[bool], has_products: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cifar.training.devices.device.multiplies_bf16", lambda: has_products)
    torch.manual_seed(0)
    weight = nn.Parameter(torch.randn(16, 3, 3, 3))
    weight.grad = torch.randn_like(weight)
    start, matrices = weight.detach().clone(), (1.6 * weight.grad).view(1, 16, 27)
    Muon([weight], lr=1.0, precision=precision).step()
    found = (start - weight.detach()).view(1, 16, 27)
    whole, short = (orthogonalise(matrices, precision=numbers) for numbers in ("fp32", "bf16"))
    expected, other = (short, whole) if is_short[has_products] else (whole, short)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)
    assert 1e-4 < float((found - other).norm() / other.norm()) < 0.05
    assert weight.dtype == torch.float32


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["optimizer=muon", "+optimizer.others.weight_dekay=0.9"],
         "no key 'weight_dekay' in optimizer.others. Did you mean 'weight_decay'?"),
        (["optimizer=muon", "+optimizer.others.iterations=3"], "no key 'iterations' in optimizer.others"),
        (["optimizer=sgd", "optimizer.momentum=nan"], "optimizer.momentum=nan is not possible"),
        (["optimizer=sgd", "optimizer.nesterov=maybe"], "optimizer.nesterov='maybe' is not possible"),
        (["optimizer=adam", "optimizer.betas=[0.9]"], r"optimizer.betas=[0.9] is not possible"),
        (["optimizer=adam", "optimizer.fused=2"], "optimizer.fused=2 is not possible"),
        (["optimizer=adamw", "optimizer.weight_decay=inf"], "optimizer.weight_decay=inf is not possible"),
        (["optimizer=adamw", "optimizer.lr=true"], "optimizer.lr=True is not possible"),
    ],
)  # fmt: skip
def test_every_optimizers_values_are_checked(words: list[str], message: str, compose: Compose) -> None:
    with pytest.raises(UserError, match=re.escape(message)):
        build_optimizer(compose(*words), tiny())


@pytest.mark.parametrize(
    "value",
    [
        {"lr": 0.0},
        {"lr": float("nan")},
        {"lr": "large"},
        {"lr": 1.0, "momentum": 1.0},
        {"lr": 1.0, "iterations": 0},
        {"lr": 1.0, "precision": "fp16"},
        {"lr": 1.0, "iterations": 2.5},
        {"lr": 1.0, "others": {"momentum": 5}},
        {"lr": 1.0, "others": {"lr": -0.1}},
        {"lr": True},
        {"lr": math.inf},
        {"lr": 10**400},
        {"lr": 1.0, "momentum": math.nan},
        {"lr": 1.0, "weight_decay": math.inf},
        {"lr": 1.0, "iterations": True},
        {"lr": 1.0, "normalise": "maybe"},
        {"lr": 1.0, "normalise": 1},
        {"lr": 1.0, "others": {"weight_decay": math.nan}},
        {"lr": 1.0, "others": [0.1]},
    ],
)
def test_impossible_values_are_refused(value: dict[str, Any]) -> None:
    with pytest.raises(UserError, match="is not possible: it takes"):
        Muon([nn.Parameter(torch.zeros(1))], **value)


@pytest.mark.parametrize(
    ("group", "message"),
    [
        ({"names": ".*", "lr": -1}, r"optimizer\.groups\.lr=-1 is not possible"),
        ({"names": ".*", "epochs": math.nan}, r"optimizer\.groups\.epochs=nan is not possible"),
        ({"names": ".*", "nesterov": 1}, r"optimizer\.groups\.nesterov=1 is not possible"),
        ({"names": ".*", "epochs": "all"}, r"optimizer\.groups\.epochs='all' is not possible"),
        ({"lr": 1.0}, "needs names"),
        (1, "needs names"),
        ({"names": "("}, r"names='\(' is no regular expression"),
        ({"names": "nothing"}, "names='nothing' matches no weight"),
    ],
)
def test_impossible_groups_are_refused(group: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        parameter_groups(tiny(), [group])


def test_a_groups_key_that_the_optimizer_does_not_know_is_refused() -> None:
    model = tiny()
    refuse_unknown([{"names": ".*", "epochs": 1, "momentum": 0.5}], optim.SGD(model.parameters()))
    with pytest.raises(UserError, match=r"no key .momentum. in .* It has: names, epochs, lr, betas"):
        refuse_unknown([{"names": ".*", "momentum": 0.5}], optim.Adam(model.parameters()))


def test_the_optimizers_of_the_docs_are_built_with_a_rate_that_falls_towards_the_first_layer(tmp_path: Path) -> None:
    write_own_parts(tmp_path)
    cfg = compose_words(["model=resnet18", "optimizer=lion", "lr=0.001"], config_dir=tmp_path / "conf")
    model = resnet18()
    optimizer = build_optimizer(cfg, model)
    assert type(optimizer).__module__ == "timm.optim.lion"
    rates = {id(weight): group["lr"] for group in optimizer.param_groups for weight in group["params"]}
    assert len(rates) == len([*model.parameters()])
    by_layer = {int(name.partition(".")[0]): rates[id(weight)] for name, weight in model.named_parameters()}
    expected = [0.17, 0.24, 0.24, 0.34, 0.34, 0.49, 0.49, 0.7, 0.7, 1]
    assert [*by_layer.values()] == pytest.approx([0.001 * factor for factor in expected])
    sharp = build_optimizer(compose_words(["optimizer=sam_adamw"], config_dir=tmp_path / "conf"), tiny())
    assert isinstance(sharp, SAM)
    assert isinstance(sharp.base, optim.AdamW)
    assert (sharp.base.defaults["weight_decay"], sharp.base.defaults["lr"], sharp.rho) == (0.05, 0.001, 0.1)


def test_groups_are_chosen_by_name_the_first_match_counts() -> None:
    model = tiny()
    dict(model.named_parameters())["0.weight"].requires_grad_(False)
    rest, biases, head = parameter_groups(model, [{"names": r".*\.bias", "lr": 0.5}, {"names": r"6\..*", "epochs": 2}])
    named = dict(model.named_parameters())
    assert [id(weight) for weight in rest["params"]] == [id(named["1.weight"])]
    assert [id(weight) for weight in biases["params"]] == [id(named[name]) for name in ("0.bias", "1.bias", "6.bias")]
    assert [id(weight) for weight in head["params"]] == [id(named["6.weight"])]
    assert (biases["lr"], head["epochs"]) == (0.5, 2)
    learnt = [id(weight) for name, weight in named.items() if name != "0.weight"]
    assert [id(weight) for weight in parameter_groups(model, [])] == learnt


def test_a_groups_own_values_count_before_those_of_the_others() -> None:
    filters, bias = nn.Parameter(torch.zeros(2, 2, 1, 1)), nn.Parameter(torch.zeros(2))
    others = {"lr": 0.1, "weight_decay": 0.2}
    optimizer = Muon([{"params": [filters, bias], "lr": 0.5}], lr=1.0, momentum=0.3, others=others)
    keys = ("is_filter", "lr", "momentum", "weight_decay")
    found = [tuple(group[key] for key in keys) for group in optimizer.param_groups]
    assert found == [(True, 0.5, 0.3, 0.0), (False, 0.5, 0.3, 0.2)]


def test_weights_without_a_gradient_stay_and_a_closure_is_called_with_gradients() -> None:
    torch.manual_seed(0)
    weights = [nn.Parameter(torch.randn(shape)) for shape in ((4, 3, 2, 2), (4, 3, 2, 2), (5,), (5,))]
    before = [weight.detach().clone() for weight in weights]
    optimizer = Muon(weights, lr=0.1, weight_decay=0.5, normalise=True)

    def closure() -> float:
        loss = weights[1].square().sum() + weights[3].square().sum()
        loss.backward()
        return float(loss.detach())

    expected = float(before[1].square().sum() + before[3].square().sum())
    assert optimizer.step(closure) == pytest.approx(expected)
    assert [torch.equal(*pair) for pair in zip(weights, before, strict=True)] == [True, False, True, False]
    assert optimizer.step() is None


def test_the_ends_of_what_is_allowed_are() -> None:
    weights = [nn.Parameter(torch.zeros(1))]
    for values in ({"lr": 1e38}, {"lr": 1.0, "iterations": 1}, {"lr": 1.0, "iterations": 100, "momentum": 0}):
        Muon(weights, **values)  # type: ignore[arg-type]
    for values in ({"lr": 2e38}, {"lr": 1.0, "iterations": 101}, {"lr": 1.0, "weight_decay": -1e-9}):
        with pytest.raises(UserError, match="is not possible: it takes"):
            Muon(weights, **values)  # type: ignore[arg-type]
    parameter_groups(tiny(), [{"names": ".*", "dampening": 1, "betas": [0, 0.5], "eps": 0, "momentum": 0, "epochs": 0}])
    for key, value in (("dampening", 1.5), ("betas", [0.5, 1]), ("betas", [0.1, 0.2, 0.3]), ("momentum", 1)):
        with pytest.raises(UserError, match=rf"optimizer\.groups\.{key}=.* is not possible"):
            parameter_groups(tiny(), [{"names": ".*", key: value}])
