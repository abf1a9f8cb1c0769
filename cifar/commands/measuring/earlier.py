"""What was measured before: a file of JSON lines, one for each comparison, and what has become slower since.

Compared is how many times faster than the plain loop a step is, because both loops took turns: what else the machine
did slowed both.
"""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean, variance
from typing import Any

from cifar.base.errors import UserError
from cifar.base.limits import Limit, number, refuse_impossible
from cifar.base.run_folder import to_json
from cifar.reports.runs.statistics import CONFIDENCE, holm, make_comparison

SAME = ("words", "device", "batch_size")  # of two results that can be compared
NEEDED = (*SAME, "ratios", "git_commit", "date")
MIN_ROUNDS = 3
RATIO = number("a positive number", lambda value: value > 0)
LIMITS = {
    "ratios": Limit("positive numbers", lambda value: isinstance(value, list) and all(map(RATIO.allows, value))),
    "git_commit": Limit("text, or null", lambda value: value is None or isinstance(value, str)),
}


def add_result(path: Path, result: dict[str, Any]) -> None:
    """Write a result as one more line."""
    with path.open("a") as file:
        file.write(to_json(result) + "\n")


def read_results(path: Path) -> list[dict[str, Any]]:
    """Return the results of a file, the oldest first; raise `UserError` if it can't be read or is another's."""
    try:
        results = [json.loads(line) for line in path.read_text().splitlines() if line.strip()]
    except OSError as error:
        raise UserError(f"{path} can't be read: {error.strerror or error}.") from error
    except ValueError as error:
        raise UserError(f"{path} is no file of cifar bench's: its lines are not all JSON.") from error
    for result in results:
        if not isinstance(result, dict) or not {*NEEDED} <= result.keys():
            raise UserError(f"{path} is no file of cifar bench's: a line of it lacks one of {', '.join(NEEDED)}.")
        refuse_impossible(str(path), result, LIMITS)
    return results


def compare_with(earlier: Sequence[dict[str, Any]], results: Sequence[dict[str, Any]]) -> tuple[list[str], bool]:
    """Return a line for each result about the latest earlier one of the same kind, and whether one is surely slower.

    That is Welch's test on the logarithms of the ratios round by round, corrected after Holm for how many there are.
    """
    pairs = [(result, latest_like(result, earlier)) for result in results]
    changes = [None if then is None else change(then["ratios"], now["ratios"]) for now, then in pairs]
    corrected = iter(holm([found[1] for found in changes if found is not None]))
    lines, is_slower = [], False
    for (now, then), found in zip(pairs, changes, strict=True):
        name = now["words"][0]
        if then is None or found is None:
            lines.append(f"{name}: nothing earlier with the same words on {now['device']}")
            continue
        factor, p_value = found[0], next(corrected)
        is_told = p_value < 1 - CONFIDENCE
        is_slower |= is_told and factor < 1
        verdict = f"{abs(1 - factor):.1%} {'slower' if factor < 1 else 'faster'}" if is_told else "no change told"
        before, after = (math.exp(fmean(map(math.log, each["ratios"]))) for each in (then, now))
        lines.append(
            f"{name}: {verdict} (p = {p_value:.2g}): {after:.2f} times the plain loop, {before:.2f} on {then['date']} "
            f"at {(then['git_commit'] or 'no commit')[:10]}; rounds: {len(now['ratios'])}, {len(then['ratios'])}"
        )
    return lines, is_slower


def latest_like(result: dict[str, Any], earlier: Sequence[dict[str, Any]]) -> dict[str, Any] | None:
    """Return the latest earlier result of the same words, batch size and device, with enough rounds; None without."""
    alike = [
        other
        for other in earlier
        if all(other[key] == result[key] for key in SAME) and len(other["ratios"]) >= MIN_ROUNDS
    ]
    return alike[-1] if alike else None


def change(then: Sequence[float], now: Sequence[float]) -> tuple[float, float]:
    """Return by what factor the ratios have grown, geometric means compared, and the two-sided p value."""
    logarithms = [[math.log(ratio) for ratio in ratios] for ratios in (now, then)]
    after, before = map(fmean, logarithms)
    counts = (len(now), len(then))
    found = make_comparison("Welch", counts, after - before, tuple(map(variance, logarithms)))
    p_value = found.p_value if found.p_value is not None else float(after == before)
    return math.exp(after - before), p_value
