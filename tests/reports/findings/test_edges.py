"""The report says where the best value lies at the end of what was swept."""

from pathlib import Path

import pytest

from cifar.reports.findings.edges import Edge, edges, search_wider
from cifar.reports.findings.verdict import verdict
from cifar.reports.report import report
from cifar.reports.runs.reading import read_results
from tests.sweep_folders import write_run, write_sweep


@pytest.mark.parametrize(
    ("scores", "side"),
    [([0.5, 0.4, 0.3], "below"), ([0.3, 0.5, 0.4], None), ([0.3, 0.4, 0.5], "above"), ([0.3, 0.5], None)],
)
def test_the_best_of_three_or_more_may_lie_at_an_end(tmp_path: Path, scores: list[float], side: str | None) -> None:
    rates = [10.0 ** (place - 3) for place in range(len(scores))]
    write_sweep(tmp_path, {rate: [score] for rate, score in zip(rates, scores, strict=True)})
    results = read_results([tmp_path])
    found = edges(results)
    assert [(edge.key, edge.side) for edge in found] == ([("lr", side)] if side else [])
    value = {"below": "0.001", "above": "0.1"}.get(side or "")
    which = {"below": "smallest", "above": "largest"}.get(side or "")
    expected = [f"The best lr, {value}, is the {which} that was swept: search wider, {side} it."] if side else []
    assert search_wider(results) == expected
    assert verdict(results)[-len(expected) or len(verdict(results)) :] == expected


def test_what_failed_or_is_to_come_belongs_to_the_range(tmp_path: Path) -> None:
    write_sweep(tmp_path, {0.1: [0.5], 0.01: [0.4], 0.001: [0.3]})
    assert edges(read_results([tmp_path])) == [Edge("lr", 0.1, "above")]
    write_run(tmp_path / "9", 1.0, 0, 9, status="failed", test_accuracy=None)
    assert edges(read_results([tmp_path])) == []
    write_sweep(tmp_path / "other", {0.1: [0.5], 0.01: [0.4], 0.001: [0.3], 1.0: []})
    assert edges(read_results([tmp_path / "other"])) == []


def test_every_key_is_looked_at_and_choices_have_no_ends(tmp_path: Path) -> None:
    for number, (size, width, name) in enumerate([(32, 1, "a"), (64, 2, "b"), (128, 3, "c")]):
        config = {"size": size, "width": width, "name": name, "seed": 0}
        words = [f"{key}={value}" for key, value in config.items()]
        write_run(tmp_path / str(number), 0.1, 0, number, overrides=words, config=config, config_hash=str(number),
                  point=str(number), val_accuracy=[0.5, 0.3, 0.4][number])  # fmt: skip
    assert edges(read_results([tmp_path])) == [Edge("size", 32, "below"), Edge("width", 1, "below")]


def test_without_a_result_nothing_has_an_end(tmp_path: Path) -> None:
    for number, rate in enumerate([0.1, 0.2, 0.3]):
        write_run(tmp_path / str(number), rate, 0, number, status="failed", test_accuracy=None)
    assert edges(read_results([tmp_path])) == []


def test_page_and_markdown_say_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_sweep(tmp_path, {0.1: [0.5], 0.01: [0.4], 0.001: [0.3]})
    report([tmp_path], tmp_path)
    sentence = "The best lr, 0.1, is the largest that was swept: search wider, above it."
    for text in (capsys.readouterr().out, *[(tmp_path / f"report.{kind}").read_text() for kind in ("md", "html")]):
        assert sentence in text
