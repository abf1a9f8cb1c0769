"""Whether the best value of a swept number lies at the end of what was swept, so that a better one may lie beyond."""

from dataclasses import dataclass
from typing import Literal

from cifar.reports.findings.importance import shown_keys
from cifar.reports.runs.results import Results, Value, show

MIN_VALUES = 3  # of two values one is always at an end


@dataclass(frozen=True)
class Edge:
    """A swept key whose best value has no other on this side."""

    key: str
    value: Value
    side: Literal["above", "below"]


def edges(results: Results) -> list[Edge]:
    """Return the swept numbers whose best value is the largest or the smallest of three or more.

    What failed or has not begun belongs to the range too: a value beyond the best is already on its way.
    """
    best = next((point for point in results.points if point.mean(results.score_key) is not None), None)
    found: list[Edge] = []
    for key in results.numeric_keys() if best else ():
        values = sorted({float(point.values[key] or 0) for point in results.points})
        value = best.values[key] if best else None
        if len(values) >= MIN_VALUES and float(value or 0) in (values[0], values[-1]):
            found.append(Edge(key, value, "above" if float(value or 0) == values[-1] else "below"))
    return found


def search_wider(results: Results) -> list[str]:
    """Return the sentences that say at which end of what was swept the best values of the shown keys lie."""
    which, shown = {"above": "largest", "below": "smallest"}, {*shown_keys(results)}
    return [
        f"The best {edge.key}, {show(edge.value)}, is the {which[edge.side]} that was swept: search wider, "
        f"{edge.side} it."
        for edge in edges(results)
        if edge.key in shown
    ]
