"""Which of many swept keys are shown: against closed forms, and in a report over more keys than a reader can take."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from cifar.reports.findings.importance import figure_keys, left_out, quarters, variance_share
from cifar.reports.report import report
from cifar.reports.runs.reading import read_results
from tests.sweep_folders import write_metrics, write_run


def test_the_share_is_epsilon_squared() -> None:
    # between (4 values a group, means 1 and 3): 8; within: 8 x 0.25 = 2; total 10; 1 - (2/6) / (10/7)
    scores = [("a", value) for value in (0.5, 1.5, 0.5, 1.5)] + [("b", value) for value in (2.5, 3.5, 2.5, 3.5)]
    assert variance_share([*scores]) == pytest.approx(1 - (2 / 6) / (10 / 7))
    assert variance_share([("a", 1.0), ("a", 1.0), ("b", 2.0), ("b", 2.0)]) == 1
    assert variance_share([("a", 1.0), ("a", 2.0), ("b", 1.0), ("b", 2.0)]) == 0  # chance alone would do better
    assert variance_share([("a", 1.0), ("b", 2.0)]) == 0  # a group each says nothing
    assert variance_share([("a", 1.0), ("a", 1.0), ("b", 1.0)]) == 0
    assert variance_share([]) == 0


def test_many_numbers_are_put_into_quarters() -> None:
    assert quarters([1, 2, 3, 4]) == []
    assert quarters([1, 2, 3, "4", 5]) == []
    assert quarters([1, 2, 3, 4, 5, 6, 7]) == [2, 4, 6]
    # 8 numbers in quarters of two, each with one score: 1
    assert variance_share([(number, float((number + 1) // 2)) for number in range(1, 9)]) == 1


NUM_KEYS = 30


def digits(number: int) -> Iterator[int]:
    """Yield an unlike 0, 1 or 2 for each key."""
    for key in range(NUM_KEYS):
        yield (number * (key + 7) * 2654435761 >> 8) % 3


def write_many_keys(folder: Path) -> None:
    """Write a sweep over 30 keys, of which only the 20th and the 5th matter."""
    for number in range(40):
        values = {f"key{key}": digit for key, digit in enumerate(digits(number))}
        write_run(folder / str(number), 0.1, 0, number, overrides=[f"{key}={value}" for key, value in values.items()],
                  config={**values, "seed": 0}, config_hash=str(number), point=str(values),
                  val_accuracy=0.2 + 0.2 * values["key20"] + 0.1 * values["key5"])  # fmt: skip
        write_metrics(folder / str(number), 4)


def test_of_many_keys_a_dozen_figures_at_most_are_drawn_and_it_is_said(tmp_path: Path) -> None:
    write_many_keys(tmp_path)
    results = report([tmp_path], tmp_path)
    assert len(results.numeric_keys()) == NUM_KEYS
    chosen = figure_keys(results)
    assert chosen[:2] == ["key20", "key5"]
    assert len(chosen) == 8
    names = {path.stem for path in tmp_path.glob("*.png")}
    assert names == {f"accuracy_vs_{key}" for key in chosen} | {"curves"}
    (sentence,) = left_out(results)
    assert sentence.startswith("8 of the 30 swept numbers have a figure: ")
    page = (tmp_path / "report.html").read_text()
    assert sentence in (tmp_path / "report.md").read_text()
    assert sentence in page.replace("&#39;", "'")
    headings = re.findall(r"<th[^>]*><button[^>]*>(key\d+)<", page)
    assert len(headings) == 12
    assert {"key20", "key5"} <= {*headings}
    assert "18 of the 30 swept keys are not shown" in page
    text = (tmp_path / "report.md").read_text()
    assert "18 of the 30 swept keys are not shown" in text
    (heading,) = [line for line in text.splitlines() if line.startswith("| rank |")]
    assert re.findall(r"key\d+", heading) == headings
    (sentence,) = [line for line in text.splitlines() if line.startswith("Best by")]
    assert re.findall(r"key\d+", sentence) == headings
    columns = (tmp_path / "report.csv").read_text().partition("\n")[0].split(",")
    assert len([column for column in columns if column.startswith("key")]) == NUM_KEYS


def test_of_few_keys_all_are_shown_in_their_order(tmp_path: Path) -> None:
    for number in range(4):
        values = {"b": number % 2, "a": number // 2}
        write_run(tmp_path / str(number), 0.1, 0, number, overrides=[f"{key}={value}" for key, value in values.items()],
                  config={**values, "seed": 0}, config_hash=str(number), point=str(number))  # fmt: skip
    results = read_results([tmp_path])
    assert figure_keys(results) == ["b", "a"]
    assert left_out(results) == []
