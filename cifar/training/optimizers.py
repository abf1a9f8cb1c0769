"""Optimizers beside torch's own: `cifar run optimizer=muon`; and parameter groups from the configuration."""

import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from cifar.base.errors import UserError
from cifar.base.limits import FLAG, Limit, list_of, number, refuse_impossible, refuse_unknown_keys, whole_number
from cifar.training.devices.device import choose_precision

NEWTON_SCHULZ = (
    3.4445,
    -4.7750,
    2.0315,
)  # Jordan's coefficients: steep at zero, so small singular values grow

FRACTION = number("a number from 0 to less than 1", lambda value: 0 <= value < 1)
MAX = 1e38  # float32, in which the steps are taken, goes little further
NOT_NEGATIVE = number(f"a number from 0 to {MAX:g}", lambda value: 0 <= value <= MAX)
PRECISIONS = ("auto", "bf16_or_fp32", "bf16", "fp32")  # of Newton-Schulz
# Of torch's optimizers and ours, and of a group of weights.
LIMITS = {
    "lr": number(f"a positive number up to {MAX:g}", lambda value: 0 < value <= MAX),
    "momentum": FRACTION,
    "dampening": number("a number from 0 to 1", lambda value: 0 <= value <= 1),
    "betas": list_of(2, FRACTION, "two numbers from 0 to less than 1"),
    "eps": NOT_NEGATIVE,
    "weight_decay": NOT_NEGATIVE,
    "iterations": whole_number(1, 100),
    "precision": Limit("one of " + ", ".join(PRECISIONS), lambda value: value in PRECISIONS),
    "epochs": NOT_NEGATIVE,
    **dict.fromkeys(("nesterov", "normalise", "amsgrad", "maximize", "capturable", "differentiable"), FLAG),
    **dict.fromkeys(("fused", "foreach"), FLAG.or_null()),
    "others": Limit("keys with values", lambda value: isinstance(value, dict)).or_null(),
}
OTHERS = ("lr", "momentum", "weight_decay")  # what Muon's other weights may have of their own


def orthogonalise(matrices: Tensor, iterations: int = 3, eps: float = 1e-7, precision: str = "auto") -> Tensor:
    """Return approximately U Vᵀ of each matrix U S Vᵀ in (B, M, N), by Newton–Schulz iterations.

    After five steps singular values above about 0.01 of the Frobenius norm lie between 0.7 and 1.2 (K. Jordan et al.
    2024, "Muon: an optimizer for hidden layers in neural networks"). `precision` is "auto" for bfloat16 on a GPU and
    the matrices' own numbers elsewhere, "bf16_or_fp32" for bfloat16 also on a processor that multiplies it, or "bf16"
    or "fp32".
    """
    a, b, c = NEWTON_SCHULZ
    is_short = choose_precision(matrices.device.type, precision) == "bf16"
    result: Tensor = matrices.bfloat16() if is_short else matrices
    result = result / (result.norm(dim=(1, 2), keepdim=True) + eps)
    is_tall = result.shape[1] > result.shape[2]
    if is_tall:
        result = result.mT
    for _ in range(iterations):
        square = result @ result.mT
        result = a * result + (b * square + c * square @ square) @ result
    if is_tall:
        result = result.mT
    return result.to(matrices.dtype)


class Muon(Optimizer):
    """Momentum with orthogonalised steps for the filters of convolutions, SGD with Nesterov momentum for the rest.

    A filter bank's step is U Vᵀ of its Nesterov momentum, seen as a matrix (out, in * height * width) (K. Jordan et al.
    2024). With `normalise` its weights are scaled to norm sqrt(out) before each step, as in airbench, for which a norm
    must follow the convolution; without, the step is scaled by sqrt(out / in) where that is more than 1. Their weight
    decay is decoupled, as in torch.optim.Muon: a step begins with the multiplication by 1 - lr * weight_decay.
    `precision` is that of the iterations (see `orthogonalise`); the weights and their momentum keep their own.
    `others` holds what differs for all weights that have not four dimensions: lr, momentum, and weight_decay, which is
    SGD's, a part of the gradient.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float,
        momentum: float = 0.6,
        weight_decay: float = 0.0,
        iterations: int = 3,
        normalise: bool = False,
        precision: str = "auto",
        others: dict[str, float] | None = None,
    ) -> None:
        values = {"lr": lr, "momentum": momentum, "weight_decay": weight_decay, "iterations": iterations}
        values["normalise"] = normalise
        refuse_impossible("optimizer", values | {"others": others, "precision": precision}, LIMITS)
        self.precision = precision
        refuse_unknown_keys("optimizer.others", others or {}, OTHERS)
        refuse_impossible("optimizer.others", others or {}, LIMITS)
        weights = list(params)
        groups = weights if weights and isinstance(weights[0], dict) else [{"params": weights}]
        split = []
        for group in groups:
            refuse_impossible("optimizer.groups", group, LIMITS)
            chosen = list(group["params"])
            filters, rest = ([weight for weight in chosen if (weight.ndim == 4) == is_4d] for is_4d in (True, False))
            if filters:
                split.append({**group, "params": filters, "is_filter": True})
            if rest:
                split.append({**(others or {}), **group, "params": rest, "is_filter": False})
        super().__init__(split, values)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Update all weights that have a gradient."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            weights = [weight for weight in group["params"] if weight.grad is not None]
            if group["is_filter"]:
                self.step_filters(weights, group)
            else:
                self.step_others(weights, group)
        return loss

    def direction(self, weight: Tensor, grad: Tensor, group: dict[str, Any]) -> Tensor:
        """Return the Nesterov momentum of a weight's gradient, and keep the buffer."""
        state = self.state[weight]
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(grad)
        buffer = state["momentum_buffer"].mul_(group["momentum"]).add_(grad)
        return grad.add(buffer, alpha=group["momentum"])

    def step_others(self, weights: list[Tensor], group: dict[str, Any]) -> None:
        """Take the steps of SGD with Nesterov momentum."""
        for weight in weights:
            grad = gradient(weight)
            if group["weight_decay"]:
                grad = grad.add(weight, alpha=group["weight_decay"])
            move(weight, self.direction(weight, grad, group), -group["lr"])

    def step_filters(self, weights: list[Tensor], group: dict[str, Any]) -> None:
        """Take orthogonalised steps, those of equal shape in one batch."""
        directions = [self.direction(weight, gradient(weight), group) for weight in weights]
        by_shape: dict[torch.Size, list[int]] = {}
        for index, weight in enumerate(weights):
            by_shape.setdefault(weight.shape, []).append(index)
        for shape, indices in by_shape.items():
            matrices = torch.stack([directions[index].flatten(1) for index in indices])
            updates = orthogonalise(matrices, group["iterations"], precision=self.precision)
            for index, update in zip(indices, updates, strict=True):
                weight = weights[index]
                scale = max(1.0, shape[0] / shape[1:].numel()) ** 0.5
                if group["normalise"]:
                    weight.mul_(shape[0] ** 0.5 / weight.norm())
                    scale = 1.0
                if group["weight_decay"]:
                    weight.mul_(1 - group["lr"] * group["weight_decay"])
                move(weight, update.view(shape), -group["lr"] * scale)


def gradient(weight: Tensor) -> Tensor:
    """Return the gradient of a weight that has one."""
    assert weight.grad is not None
    return weight.grad


def move(weight: Tensor, direction: Tensor, distance: float | Tensor) -> None:
    """Add a multiple of `direction` to a weight; a distance that is a tensor stays on its device."""
    if isinstance(distance, Tensor):
        weight.addcmul_(direction, distance)
    else:
        weight.add_(direction, alpha=distance)


def parameter_groups(model: nn.Module, groups: Sequence[dict[str, Any]]) -> list[Any]:
    """Return what an optimizer is given: all weights that are learnt, or groups of them with values of their own.

    Each of `groups` has `names`, a regular expression for whole names of weights, of which the first that matches
    counts, and values such as lr, weight_decay, or epochs, after which the schedule has ended for it.
    Raises `UserError` for an expression that matches no weight, and for an impossible value.
    """
    named = {name: weight for name, weight in model.named_parameters() if weight.requires_grad}
    if not groups:
        return [*named.values()]
    rest, result = dict(named), []
    for group in groups:
        if not isinstance(group, dict) or not isinstance(names := group.get("names"), str):
            raise UserError("optimizer.groups: each needs names, a regular expression for whole names of weights.")
        values = {key: value for key, value in group.items() if key != "names"}
        refuse_impossible("optimizer.groups", values, LIMITS)
        try:
            chosen = [name for name in rest if re.fullmatch(names, name)]
        except re.error as error:
            raise UserError(f"optimizer.groups: names={names!r} is no regular expression: {error}.") from error
        if not chosen:
            raise UserError(
                f"optimizer.groups: names={names!r} matches no weight of the model that is left. There are "
                f"{', '.join(rest)}."
            )
        result.append({"params": [rest.pop(name) for name in chosen], **group})
    return [*([{"params": [*rest.values()]}] if rest else []), *result]


def refuse_unknown(groups: Sequence[dict[str, Any]], optimizer: Optimizer) -> None:
    """Raise `UserError` if a group has a value of which the optimizer knows nothing."""
    for group in groups:
        refuse_unknown_keys("optimizer.groups", group, ["names", "epochs", *optimizer.defaults])
