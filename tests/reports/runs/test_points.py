"""Which numbers of which runs enter a point, and how a point is named."""

from pathlib import Path
from typing import Any

import pytest

from cifar.reports.runs.results import Point, Results, Run, Value


def made(seed: int | None, status: str = "completed", **summary: Any) -> Run:
    """Return a run that no folder holds."""
    return Run(Path("x"), status, seed=seed, summary=summary)


def test_only_finite_numbers_are_figures() -> None:
    values: dict[str, Any] = {"a": 0.5, "b": 1, "c": 0, "d": float("nan"), "e": float("inf"), "f": "0.5", "g": None}
    run = made(0, **values)
    assert {key: run.figure(key) for key in (*values, "absent")} == {
        "a": 0.5, "b": 1.0, "c": 0.0, "d": None, "e": None, "f": None, "g": None, "absent": None,
    }  # fmt: skip


def test_what_did_not_end_enters_no_number_of_a_point() -> None:
    runs = [
        made(2, accuracy=0.3, steps=4, skipped_steps=1),
        made(0, "diverged", accuracy=0.1, steps=8, skipped_steps=2),
        made(2, accuracy=0.5),
        made(1, "failed", accuracy=0.9, steps=100, skipped_steps=50),
        made(3, "interrupted", accuracy=0.9, steps=100, skipped_steps=50),
        made(None, accuracy=0.9, steps=1),
        made(4),
    ]
    point = Point({}, runs)
    assert point.seeds == [0, 2, 4]
    assert point.over_seeds("accuracy") == {2: 0.4, 0: 0.1}
    assert point.mean("accuracy") == 0.25
    assert (point.mean("absent"), point.interval("absent")) == (None, None)
    found = point.interval("accuracy")
    assert found is not None
    assert found.values == (0.4, 0.1)
    assert point.num_skipped == 3
    assert point.status_text == "4 completed, 1 diverged, 1 failed, 1 interrupted, 3 of 13 steps skipped"
    assert Point({}, [made(0, skipped_steps=2)]).status_text == "1 completed, 2 steps skipped"


def test_keys_are_numeric_whose_values_are_two_or_more_numbers() -> None:
    columns: dict[str, tuple[Value, Value, Value]] = {
        "floats": (0.1, 0.2, 0.2), "mixed": (1, 2.5, 3), "one": (0.1, 0.1, 0.1), "flags": (True, False, 2),
        "words": (1, 2, "three"), "nothing": (1, 2, None),
    }  # fmt: skip
    points = [Point({key: values[index] for key, values in columns.items()}, []) for index in range(3)]
    results = Results([], [*columns], {}, points, [])
    assert results.numeric_keys() == ["floats", "mixed"]
    assert points[0].label == "floats=0.1 mixed=1 one=0.1 flags=true words=1 nothing=1"
    assert points[2].named(["nothing", "flags"]) == "nothing=null flags=2 …"
    assert points[0].named([]) == "…"
    assert Point({}, []).label == "all runs"


@pytest.mark.parametrize(
    ("summaries", "score_key", "names"),
    [
        ([{}, {}], "test_accuracy", ["test"]),
        ([{}, {"val_accuracy": 0.0}], "val_accuracy", ["validation", "test"]),
        ([{"test_tta_accuracy": 0.0}, {}], "test_accuracy", ["test", "test with TTA"]),
        ([{"test_tta_accuracy": 0.5}, {"val_accuracy": 0.5}], "val_accuracy", ["validation", "test", "test with TTA"]),
    ],
)
def test_what_one_run_measured_is_shown(summaries: list[dict[str, Any]], score_key: str, names: list[str]) -> None:
    results = Results([], [], {}, [Point({}, [made(0, **summary)]) for summary in summaries], [])
    assert (results.score_key, [*results.accuracies.values()]) == (score_key, names)
    assert len(results.runs) == 2
