"""Files of runs with anything in them: the report is made all the same, and says what it left out."""

import json
import random
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cifar.reports.files.csv_files import points_csv, runs_csv
from cifar.reports.files.markdown import markdown
from cifar.reports.files.page import write_page
from cifar.reports.files.terminal import plain
from cifar.reports.findings.table import columns
from cifar.reports.findings.verdict import verdict
from cifar.reports.runs.reading import read_results
from cifar.reports.runs.records import KINDS, MAX_DEPTH, is_fraction, is_number, is_whole, read_summary, tidy
from tests.conftest import ROOT
from tests.sweep_folders import write_metrics, write_sweep

NUM_MUTATIONS = 400
ODD: list[Any] = [
    None, True, 0, -1, 3, 1.5, 1e308, -1e308, 10**400, 2**63, float("nan"), float("inf"), "", "x", "1e999", "\ud800",
    "\x1b[2J\u202e", "=1+1", "a|b\n# c", "a,b", "$x$", [], [[]], ["\udfff"], [3], {}, {"a": 1}, {"a": {"b": [None]}},
    {"_target_": ["x"]}, "x" * 10_000,
]  # fmt: skip
TEXTS = [
    "[" * 100_000 + "]" * 100_000,
    '{"a":' * 5_000 + "1" + "}" * 5_000,
    "",
    "null",
    "3",
    "NaN",
    '"\\ud800"',
    "[]",
    "\0",
]


def write_all(folder: Path) -> None:
    """Write a small sweep with all files that a report reads."""
    write_sweep(folder, {0.1: [0.2, 0.3, 0.31], 0.01: [0.5, 0.6]})
    for number in range(5):
        write_metrics(folder / str(number), 3)
        (folder / str(number) / ".hydra").mkdir()
        (folder / str(number) / ".hydra" / "config.yaml").write_text("lr: 0.1\nseed: 0\n")
        (folder / str(number) / ".hydra" / "overrides.yaml").write_text("- lr=0.1\n- seed=0\n")


def everything(folder: Path) -> list[str]:
    """Return all texts of a report on the folder but its page, as they are written."""
    results = read_results([folder])
    sentences = verdict(results)
    texts = [
        plain(results, sentences),
        markdown(results, columns(results), sentences, []),
        points_csv(results),
        runs_csv(results, folder),
    ]
    return ["\n".join(results.warnings), *[text.encode().decode() for text in texts]]


def places(content: Any, place: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Return where values stand in nested dicts and lists."""
    entries = content.items() if isinstance(content, dict) else enumerate(content) if isinstance(content, list) else ()
    return [place, *(found for key, value in entries for found in places(value, (*place, key)))]


def replaced(content: Any, place: tuple[Any, ...], value: Any) -> Any:
    """Return the content with another value at a place."""
    if not place:
        return value
    copy = dict(content) if isinstance(content, dict) else [*content]
    copy[place[0]] = replaced(content[place[0]], place[1:], value)
    return copy


def mutate(path: Path, rng: random.Random) -> None:
    """Damage a file: a value of another kind, one line or the whole text, or single bytes."""
    text = path.read_bytes()
    kind = rng.randrange(10)
    if kind < 6 and path.suffix != ".yaml":
        lines = text.splitlines() if path.suffix == ".jsonl" else [text]
        number = rng.randrange(len(lines))
        content = json.loads(lines[number])
        lines[number] = json.dumps(replaced(content, rng.choice(places(content)), rng.choice(ODD))).encode()
        text = b"\n".join(lines)
    elif kind < 8:
        text = rng.choice(TEXTS).encode()
    else:
        damaged = bytearray(text)
        for _ in range(rng.randrange(1, 20)):
            damaged[rng.randrange(len(damaged))] = rng.randrange(256)
        text = bytes(damaged[: rng.randrange(1, len(damaged) + 1)])
    path.write_bytes(text)


@pytest.mark.parametrize("part", range(4))
def test_any_content_of_any_file_costs_a_warning_at_most(tmp_path: Path, part: int) -> None:
    write_all(tmp_path)
    files = sorted(path for path in tmp_path.rglob("*") if path.suffix in (".json", ".jsonl", ".yaml"))
    whole = {path: path.read_bytes() for path in files}
    rng = random.Random(part)
    for _ in range(NUM_MUTATIONS // 4):
        chosen = rng.sample(files, rng.randrange(1, 4))
        for path in chosen:
            mutate(path, rng)
        everything(tmp_path)
        for path in chosen:
            path.write_bytes(whole[path])
    assert everything(tmp_path)[0] == ""


@pytest.mark.parametrize("part", range(4))
def test_the_page_takes_any_content_too(tmp_path: Path, part: int) -> None:
    write_all(tmp_path)
    rng = random.Random(part)
    for path in rng.sample([path for path in tmp_path.rglob("*") if path.suffix in (".json", ".jsonl")], 5):
        mutate(path, rng)
    results = read_results([tmp_path])
    write_page(results, columns(results), [], verdict(results), "", tmp_path / "report.html")


def edit(**entries: Any) -> Callable[[Path], None]:
    """Return a function that puts entries into the first run's summary."""

    def change(folder: Path) -> None:
        path = folder / "0" / "summary.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **entries}))

    return change


def write(name: str, text: str) -> Callable[[Path], None]:
    """Return a function that writes a file in the sweep's folder."""

    def change(folder: Path) -> None:
        (folder / name).write_text(text)

    return change


@pytest.mark.parametrize(
    ("change", "warning"),
    [
        (edit(choices=[]), "0/summary.json: no run writes such choices, so they are left out."),
        (edit(choices=3, versions="x"), "no run writes such choices, versions, so they are left out."),
        (edit(choices={"data": {"a": 1}}), ""),
        (edit(test_accuracy=10**400), "no run writes such test_accuracy"),
        (edit(test_accuracy=1.5), "no run writes such test_accuracy"),
        (edit(train_seconds=float("inf")), "no run writes such train_seconds"),
        (edit(status="\ud800"), "no run writes such status"),
        (edit(git_commit="\ud800"), "commit: 0123456789, ?."),
        (edit(overrides=["+tag=\ud800", "lr=0.1", "seed=0"]), ""),
        (write("0/summary.json", TEXTS[0]), "can't be read (it is nested too deeply)"),
        (write("sweep.json", TEXTS[0]), "sweep.json can't be read"),
        (write("sweep.json", "3"), "sweep.json can't be read"),
        (write("sweep.json", '{"swept": [], "jobs": 3, "started_at": 0, "num_done_before": 0}'), "sweep.json can't be"),
    ],
)  # fmt: skip
def test_what_is_left_out_is_named(tmp_path: Path, change: Callable[[Path], None], warning: str) -> None:
    write_all(tmp_path)
    change(tmp_path)
    results = read_results([tmp_path])
    assert warning in "\n".join(results.warnings)
    assert len(results.warnings) <= 1
    assert len([run for run in results.runs if run.folder.name == "4"]) == 1


@pytest.mark.parametrize(
    "line", ['{"step": 1e999, "train/loss": 1}', '{"step": 99, "val/accuracy": Infinity}', '{"step": true}',
             f'{{"step": 99, "train/loss": {10**400}}}', '{"step": 99, "train/loss": "1"}', '{"step": -1}'],
)  # fmt: skip
def test_lines_that_no_run_writes_are_counted(tmp_path: Path, line: str) -> None:
    write_all(tmp_path)
    with (tmp_path / "0" / "metrics.jsonl").open("a") as file:
        file.write(f"{line}\n")
    results = read_results([tmp_path])
    assert results.warnings == [f"{tmp_path}/0/metrics.jsonl: 1 of 7 lines are damaged and left out."]


def test_kinds() -> None:
    assert [is_number(value) for value in (1, 1.5, True, float("nan"), 1e301, 10**400, "1", None)] == [
        True, True, False, False, False, False, False, False,
    ]  # fmt: skip
    assert [is_fraction(value) for value in (0, 1.0, -0.1, 1.1)] == [True, True, False, False]
    assert [is_whole(value) for value in (3, -3, 3.0, True, 2**53 + 1)] == [True, True, False, False, False]


def test_tidy_content_can_be_shown_and_compared() -> None:
    assert tidy({"a": float("nan"), 3: [float("inf"), "\ud800"], None: 10**400}) == {
        "a": "nan", "3": ["inf", "?"], "None": "a number of 1329 bits",
    }  # fmt: skip
    nested: list[Any] = []
    for _ in range(MAX_DEPTH):
        nested = [nested]
    assert tidy(nested) == nested
    with pytest.raises(ValueError, match="nested too deeply"):
        tidy([nested])


def test_a_summary_that_runs_write_is_read_without_a_word(tmp_path: Path) -> None:
    write_all(tmp_path)
    warnings: list[str] = []
    path = tmp_path / "0" / "summary.json"
    known = read_summary(path, warnings)
    assert warnings == []
    assert known == json.loads(path.read_text())


def test_every_key_that_the_report_asks_for_has_a_kind() -> None:
    source = "".join(path.read_text() for path in (ROOT / "cifar" / "reports").rglob("*.py"))
    asked = re.findall(r'(?:summary\.get\(|summary\[|figure\(|mean\(|interval\()["\'](\w+)', source)
    assert {"flags", "val_accuracy", "skipped_steps"} <= {*asked} <= {*KINDS}
