"""The ranges of a search in Hydra's syntax, such as 'lr=tag(log, interval(1e-4, 1))', as Optuna's distributions."""

import math
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep, IntervalSweep, Override, RangeSweep

from cifar.base.errors import UserError

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution, FloatDistribution, IntDistribution

Parameter = str | int | float  # a string is Hydra's text for one of several choices


def split_ranges(words: list[str]) -> "tuple[dict[str, BaseDistribution], list[str]]":
    """Return the distributions by key (or group), and the words that are the same for all trials.

    Raises `UserError` for a range that can't be searched, and Hydra's own error for a word that it can't read.
    """
    space, others = {}, []
    for override in OverridesParser.create().parse_overrides(words):
        if override.is_sweep_override():
            space[override.get_key_element()] = distribution(override)
        else:
            others.append(str(override.input_line))
    return space, others


def distribution(override: Override) -> "BaseDistribution":
    """Return what Optuna draws from: numbers for an interval or a range, else one of the listed choices."""
    from optuna.distributions import CategoricalDistribution

    value = override.value()
    try:
        if isinstance(value, IntervalSweep) and value.start is not None and value.end is not None:
            return numbers(value.start, value.end, "log" in value.tags)
        if isinstance(value, RangeSweep):
            return steps(value)
        if isinstance(value, ChoiceSweep):
            return CategoricalDistribution([*dict.fromkeys(override.sweep_string_iterator())])
    except (ValueError, TypeError) as error:
        raise UserError(f"{override.input_line} is not possible: {' '.join(str(error).split())}") from None
    raise UserError(
        f"{override.input_line} can't be searched: it takes interval(low, high), tag(log, interval(low, high)), "
        "int(interval(low, high)), range(start, stop, step) or choices such as a,b."
    )


def numbers(low: float, high: float, is_log: bool) -> "FloatDistribution | IntDistribution":
    """Return all numbers from `low` to `high`; whole ones, both ends included, if these are."""
    from optuna.distributions import FloatDistribution, IntDistribution

    if not (math.isfinite(low) and math.isfinite(high)):
        raise ValueError("its ends must be finite numbers.")
    if low >= high:
        raise ValueError(f"{low} is not less than {high}.")
    if is_log and low <= 0:
        raise ValueError("a logarithmic interval takes positive numbers.")
    if isinstance(low, int) and isinstance(high, int):
        return IntDistribution(low, high, log=is_log)
    return FloatDistribution(low, high, log=is_log)


def steps(sweep: RangeSweep) -> "FloatDistribution | IntDistribution":
    """Return the numbers that Hydra's range stands for, in which the last one is left out."""
    from optuna.distributions import FloatDistribution, IntDistribution

    if sweep.tags:
        raise ValueError("only an interval can be tagged.")
    start, stop, step = (Decimal(value or 0) for value in (sweep.start, sweep.stop, sweep.step))
    if not (start.is_finite() and stop.is_finite() and step.is_finite() and step != 0):
        raise ValueError("start, stop and step must be finite numbers, and step not 0.")
    count = math.ceil((stop - start) / step)  # not listed: there may be billions
    if count < 2:
        raise ValueError("it has fewer than two values.")
    low, high = sorted((start, start + (count - 1) * step))
    if all(isinstance(value, int) for value in (sweep.start, sweep.stop, sweep.step)):
        return IntDistribution(int(low), int(high), step=int(abs(step)))
    return FloatDistribution(float(low), float(high), step=float(abs(step)))


def refuse_others(parameters: dict[str, Any], space: "dict[str, BaseDistribution]", origin: str) -> None:
    """Raise `UserError` for the first parameter that the search's ranges don't hold; `origin` begins the message."""
    from optuna.distributions import CategoricalDistribution

    for key, value in parameters.items():
        found = space.get(key)
        if isinstance(found, CategoricalDistribution):
            is_good = value in found.choices
        else:
            is_good = found is not None and isinstance(value, int | float) and found.low <= value <= found.high  # type: ignore[attr-defined]
        if not is_good:
            raise UserError(f"{origin} has {key}={value}, which is not in the search's ranges. Nothing was called.")


def examples(space: "dict[str, BaseDistribution]") -> list[dict[str, Parameter]]:
    """Return parameters that try out both ends of every range of numbers, and every choice."""
    from optuna.distributions import CategoricalDistribution

    ends = {
        key: [*map(str, found.choices)] if isinstance(found, CategoricalDistribution) else [found.low, found.high]  # type: ignore[attr-defined]
        for key, found in space.items()
    }
    num = max(map(len, ends.values()))
    return [{key: values[min(index, len(values) - 1)] for key, values in ends.items()} for index in range(num)]


def to_words(parameters: dict[str, Parameter]) -> list[str]:
    """Return a trial's parameters as words of the command line."""
    return [f"{key}={value if isinstance(value, str) else repr(value)}" for key, value in parameters.items()]


def label(parameters: dict[str, Parameter]) -> str:
    """Return a trial's parameters in short, such as "lr=0.001234 model=vgg16"."""
    return " ".join(
        f"{key.lstrip('+')}={value:.4g}" if isinstance(value, float) else f"{key.lstrip('+')}={value}"
        for key, value in parameters.items()
    )
