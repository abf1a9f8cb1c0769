"""What has become slower: which earlier result counts, when a change is told, and the exit code."""

import json
from pathlib import Path
from typing import Any

import pytest

from cifar.base.errors import UserError
from cifar.commands.measuring import bench
from cifar.commands.measuring.earlier import add_result, change, compare_with, latest_like, read_results

FAST, SLOW, SAME = [1.50, 1.52, 1.51, 1.49], [1.30, 1.32, 1.31, 1.29], [1.45, 1.55, 1.40, 1.60]


def result(ratios: list[float], **others: Any) -> dict[str, Any]:
    """Return as much of a result as a comparison needs."""
    facts = {"words": ["model=resnet50"], "device": "cpu (X, 2 threads, fp32)", "batch_size": 100}
    return {**facts, "git_commit": "0123456789abcdef", "date": "2026-11-02", "ratios": ratios, **others}


def test_lines_are_added_and_read_again(tmp_path: Path) -> None:
    path = tmp_path / "bench.jsonl"
    for ratios in (FAST, SLOW):
        add_result(path, result(ratios))
    assert [each["ratios"] for each in read_results(path)] == [FAST, SLOW]
    assert len(path.read_text().splitlines()) == 2


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "its lines are not all JSON"),
        ('{"words": []}', "a line of it lacks one of"),
        ("[1]", "a line of it lacks"),
    ],
)
def test_other_files_are_refused(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "other"
    with pytest.raises(UserError, match="can't be read: No such file"):
        read_results(path)
    path.write_text(text)
    with pytest.raises(UserError, match=message):
        read_results(path)


@pytest.mark.parametrize(
    "others", [{"ratios": [1.5, -1, 2]}, {"ratios": "1.5"}, {"ratios": [1, "2"]}, {"git_commit": 7}]
)
def test_what_no_bench_wrote_is_refused_before_anything_is_measured(tmp_path: Path, others: dict[str, Any]) -> None:
    path = tmp_path / "made.jsonl"
    add_result(path, result(FAST) | others)
    with pytest.raises(UserError, match=r"made\.jsonl\.(ratios|git_commit)=.* is not possible: it takes"):
        read_results(path)


def test_the_latest_of_the_same_words_and_hardware_counts() -> None:
    earlier = [
        result(FAST), result(SLOW), result(SAME, device="cpu (Y)"), result(SAME, batch_size=50),
        result(SAME, words=["model=vgg16"]), result(SAME[:2]),
    ]  # fmt: skip
    found = latest_like(result(FAST), earlier)
    assert found is not None
    assert found["ratios"] == SLOW
    assert latest_like(result(FAST, device="gpu"), earlier) is None


def test_a_change_is_that_of_the_geometric_means() -> None:
    factor, p_value = change([2.0, 8.0], [4.0, 4.0])
    assert factor == pytest.approx(1)
    assert p_value == pytest.approx(1)
    factor, p_value = change(FAST, SLOW)
    assert factor == pytest.approx(1.305 / 1.505, rel=1e-3)
    assert p_value < 1e-4
    assert change([2.0, 2.0], [2.0, 2.0]) == (1.0, 1.0)
    assert change([2.0, 2.0], [1.0, 1.0]) == (0.5, 0.0)


@pytest.mark.parametrize(
    ("now", "verdict", "is_slower"),
    [(SLOW, "13.3% slower (p = ", True), (SAME, "no change told (p = ", False), (FAST, "no change told", False)],
)
def test_slower_is_said_only_where_the_rounds_tell_it(now: list[float], verdict: str, is_slower: bool) -> None:
    (line,), answer = compare_with([result(FAST)], [result(now)])
    assert verdict in line
    assert "1.50 on 2026-11-02 at 0123456789; rounds: 4, 4" in line
    assert answer is is_slower


def test_faster_is_no_failure_and_what_has_no_earlier_one_is_named() -> None:
    lines, is_slower = compare_with([result(SLOW)], [result(FAST), result(SLOW, words=["model=vgg16"])])
    assert "15.3% faster" in lines[0]
    assert lines[1] == "model=vgg16: nothing earlier with the same words on cpu (X, 2 threads, fp32)"
    assert not is_slower


def test_two_rounds_in_chances_hands_are_corrected_for_how_many_are_compared() -> None:
    nearly = [1.42, 1.48, 1.40, 1.46]
    alone = compare_with([result(FAST)], [result(nearly)])
    assert alone[1]
    among = [result(FAST, words=[f"model={number}"]) for number in range(9)]
    ours = [result(FAST, words=[f"model={number}"]) for number in range(8)] + [result(nearly, words=["model=8"])]
    assert not compare_with(among, ours)[1]


@pytest.mark.parametrize(("now", "code"), [(SLOW, 1), (FAST, 0)])
def test_the_command_compares_with_what_stood_there_before_and_adds_to_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], now: list[float], code: int
) -> None:
    path = tmp_path / "bench.jsonl"
    add_result(path, result(FAST))
    monkeypatch.setattr(bench, "compare", lambda words, num_rounds, num_steps: result(now))
    monkeypatch.setattr(bench, "table", lambda measured: "the table")
    with pytest.raises(SystemExit) as caught:
        bench.bench(["--log", str(path), "--against", str(path)])
    assert caught.value.code == code
    assert capsys.readouterr().out.startswith("the table\nmodel=resnet50: ")
    assert [json.loads(line)["ratios"] for line in path.read_text().splitlines()] == [FAST, now]


def test_too_few_rounds_are_refused_before_anything_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench, "compare", lambda *arguments: pytest.fail("measured"))
    with pytest.raises(SystemExit):
        bench.bench(["--rounds", "2", "--against", "x"])
