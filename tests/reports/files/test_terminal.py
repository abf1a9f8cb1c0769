"""The table on a terminal: drawn in its width and without what would steer it; into a pipe as plain as ever."""

import io
import re
from pathlib import Path

import pytest
from rich.console import Console

from cifar.reports.files.terminal import draw, plain
from cifar.reports.report import report
from cifar.reports.runs.reading import read_results
from tests.sweep_folders import write_run, write_sweep


def drawn(folder: Path, width: int, **options: object) -> str:
    """Return what a terminal of that width gets."""
    file = io.StringIO()
    console = Console(file=file, width=width, force_terminal=True, highlight=False, markup=False,
                      color_system="standard", **options)  # type: ignore[arg-type]  # fmt: skip
    draw(read_results([folder]), ["The verdict."], console)
    return file.getvalue()


def uncoloured(text: str) -> str:
    """Return the text without its colours."""
    return re.sub(r"\x1b\[[\d;]*m", "", text)


def test_a_narrow_terminal_keeps_the_important_columns_and_the_best_rows(tmp_path: Path) -> None:
    write_sweep(tmp_path, {0.001 * number: [0.01 * number] for number in range(1, 31)})
    lines = uncoloured(drawn(tmp_path, 50)).splitlines()
    assert max(map(len, lines)) <= 50
    assert lines[0].split() == ["rank", "lr", "seeds", "validation", "test"]
    assert lines[2].split()[:4] == ["1", "0.03", "1", "30.00"]
    assert lines[-2:] == ["… and 11 more in report.md", "The verdict."]
    assert len(lines) == 2 + 19 + 2
    wide = uncoloured(drawn(tmp_path, 200)).splitlines()[0].split()
    assert wide[-3:] == ["loss", "time", "images/s"]


def test_the_best_row_is_bold_and_nothing_of_a_run_steers_the_terminal(tmp_path: Path) -> None:
    for number, name in enumerate(["plain", "[bold]\x1b[2Jx[/bold] :smile:"]):
        write_run(tmp_path / str(number), 0.1, 0, number, val_accuracy=0.5 - number / 10, point=name,
                  config={"name": name, "seed": 0}, overrides=[f"name='{name}'"], config_hash=name)  # fmt: skip
    text = drawn(tmp_path, 120)
    assert "[bold] [2Jx[/bold] :smile:" in text
    assert {*re.findall(r"\x1b\[[\d;]*[A-Za-z]", text)} == {"\x1b[1m", "\x1b[0m"}
    (bold,) = [line for line in text.splitlines() if "plain" in line]
    assert bold.startswith("\x1b[1m")


def test_no_color_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_sweep(tmp_path, {0.1: [0.5], 0.2: [0.4]})
    write_run(tmp_path / "9", 0.3, 0, 9, status="failed", test_accuracy=None)
    for is_coloured in (True, False):
        if not is_coloured:
            monkeypatch.setenv("NO_COLOR", "1")
        file = io.StringIO()
        console = Console(file=file, width=120, force_terminal=True, color_system="standard")
        draw(read_results([tmp_path]), [], console)
        assert ("\x1b[31m" in file.getvalue()) == is_coloured


def test_into_a_pipe_it_is_plain(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_sweep(tmp_path, {0.1: [0.5], 0.2: [0.4]})
    report([tmp_path], tmp_path)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "rank  lr   seeds  validation  test     status       train loss  time       images/s"
    assert lines[1] == "1     0.1  1      50.00 %     50.00 %  1 completed  1.5         2 min 0 s  1,000"
    assert plain(read_results([tmp_path]), ["a", "b"]).splitlines() == [*lines[:3], "a", "b"]
