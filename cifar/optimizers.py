"""Optimizers beside torch's own: `python run.py optimizer=muon`; and parameter groups from the configuration."""

import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from cifar.errors import UserError

NEWTON_SCHULZ = (
    3.4445,
    -4.7750,
    2.0315,
)  # Jordan's coefficients: steep at zero, so small singular values grow


LIMITS: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "lr": ("a positive number", lambda value: value > 0),
    "momentum": ("0 to less than 1", lambda value: 0 <= value < 1),
    "weight_decay": ("0 or more", lambda value: value >= 0),
    "iterations": ("a whole number from 1", lambda value: isinstance(value, int) and value >= 1),
    "epochs": ("0 or more", lambda value: value >= 0),
}


def refuse_impossible(values: dict[str, Any], where: str) -> None:
    """Raise `UserError` if one of the values is not a number within its limits."""
    for name, value in values.items():
        if name in LIMITS and not (isinstance(value, int | float) and LIMITS[name][1](value)):
            raise UserError(f"{where}.{name}={value!r} is not possible: it takes {LIMITS[name][0]}.")


def orthogonalise(matrices: Tensor, iterations: int = 3, eps: float = 1e-7) -> Tensor:
    """Return approximately U Vᵀ of each matrix U S Vᵀ in (B, M, N), by Newton–Schulz iterations.

    After five steps singular values above about 0.01 of the Frobenius norm lie between 0.7 and 1.2 (K. Jordan et al.
    2024, "Muon: an optimizer for hidden layers in neural networks"). On a GPU it is computed in bfloat16.
    """
    a, b, c = NEWTON_SCHULZ
    result: Tensor = matrices.bfloat16() if matrices.is_cuda else matrices
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
    must follow the convolution; without, the step is scaled by sqrt(out / in) where that is more than 1. `others`
    holds what differs for all weights that have not four dimensions: lr, momentum, weight_decay (coupled).
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float,
        momentum: float = 0.6,
        weight_decay: float = 0.0,
        iterations: int = 3,
        normalise: bool = False,
        others: dict[str, float] | None = None,
    ) -> None:
        values = {"lr": lr, "momentum": momentum, "weight_decay": weight_decay, "iterations": iterations}
        refuse_impossible(values, "optimizer")
        refuse_impossible(others or {}, "optimizer.others")
        weights = list(params)
        groups = weights if weights and isinstance(weights[0], dict) else [{"params": weights}]
        split = []
        for group in groups:
            refuse_impossible(group, "optimizer.groups")
            chosen = list(group["params"])
            filters, rest = ([weight for weight in chosen if (weight.ndim == 4) == is_4d] for is_4d in (True, False))
            if filters:
                split.append({**group, "params": filters, "is_filter": True})
            if rest:
                split.append({**(others or {}), **group, "params": rest, "is_filter": False})
        super().__init__(split, {**values, "normalise": normalise})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Update all weights that have a gradient."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            weights = [weight for weight in group["params"] if weight.grad is not None]
            directions = [self.direction(weight, group) for weight in weights]
            if group["is_filter"]:
                self.step_filters(weights, directions, group)
            else:
                for weight, direction in zip(weights, directions, strict=True):
                    move(weight, direction, -group["lr"])
        return loss

    def direction(self, weight: Tensor, group: dict[str, Any]) -> Tensor:
        """Return the Nesterov momentum of a weight's gradient, and keep the buffer."""
        assert weight.grad is not None
        grad = weight.grad
        if group["weight_decay"]:
            grad = grad.add(weight, alpha=group["weight_decay"])
        state = self.state[weight]
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(grad)
        buffer = state["momentum_buffer"].mul_(group["momentum"]).add_(grad)
        return grad.add(buffer, alpha=group["momentum"])

    def step_filters(self, weights: list[Tensor], directions: list[Tensor], group: dict[str, Any]) -> None:
        """Take orthogonalised steps, those of equal shape in one batch."""
        by_shape: dict[torch.Size, list[int]] = {}
        for index, weight in enumerate(weights):
            by_shape.setdefault(weight.shape, []).append(index)
        for shape, indices in by_shape.items():
            matrices = torch.stack([directions[index].flatten(1) for index in indices])
            for index, update in zip(indices, orthogonalise(matrices, group["iterations"]), strict=True):
                weight = weights[index]
                scale = max(1.0, shape[0] / shape[1:].numel()) ** 0.5
                if group["normalise"]:
                    weight.mul_(shape[0] ** 0.5 / weight.norm())
                    scale = 1.0
                move(weight, update.view(shape), -group["lr"] * scale)


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
        refuse_impossible(values, "optimizer.groups")
        try:
            chosen = [name for name in rest if re.fullmatch(names, name)]
        except re.error as error:
            raise UserError(f"optimizer.groups: names={names!r} is no regular expression: {error}.") from error
        if not chosen:
            raise UserError(
                f"optimizer.groups: names={names!r} matches no weight of the model that is left. There are "
                f"{', '.join(rest)}."
            )
        result.append({"params": [rest.pop(name) for name in chosen], **values})
    return [*([{"params": [*rest.values()]}] if rest else []), *result]


def refuse_unknown(groups: Sequence[dict[str, Any]], optimizer: Optimizer) -> None:
    """Raise `UserError` if a group has a value of which the optimizer knows nothing."""
    known = ["names", "epochs", *optimizer.defaults]
    for key in (key for group in groups for key in group):
        if key not in known:
            raise UserError(f"There is no key {key!r} in optimizer.groups. A group has: {', '.join(known)}.")
