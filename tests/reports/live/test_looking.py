"""What cifar watch sees: files as they grow, cut or damaged, and that looking changes nothing."""

import io
import json
import os
import random
import time
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from cifar.base.locks import OWNER, SILENT_SECONDS, locked, seems_alive
from cifar.base.run_folder import write_json
from cifar.reports.live.following import MetricsTail
from cifar.reports.live.looking import LiveSweep, Watcher
from cifar.reports.live.screen import bar, page, sparkline
from cifar.sweeps.plan import make_plan, write_plan
from tests.sweep_folders import write_metrics, write_run

LOG = "[2026-11-25 22:34:35,605][cifar.training.trainer][INFO] Epoch [2/5], Step [4/10] Loss: 2.5\n"


class Utf8(io.StringIO):
    """A terminal's stream that can show everything."""

    encoding = "utf-8"


def line(step: int, epoch: int, **metrics: Any) -> str:
    return json.dumps({"step": step, "epoch": epoch, "time_seconds": step / 10, **metrics}) + "\n"


def write_running(folder: Path) -> None:
    """Write a sweep of five jobs: done, at work, failed, killed, and one to come."""
    folder.mkdir(parents=True, exist_ok=True)
    write_plan(folder, make_plan(["lr=0.1,0.2,0.3,0.4,0.5", "seed=0"], 0))
    write_run(folder / "0", 0.1, 0, 0, val_accuracy=0.5)
    write_run(folder / "1", 0.2, 0, 1, status="running", test_accuracy=None)
    lines = [line(step, 1 + step // 11, **{"train/loss": 3 - step / 10, "train/images_per_second": 1234.5})
             for step in range(1, 15)]  # fmt: skip
    (folder / "1" / "metrics.jsonl").write_text("".join(lines) + line(14, 2, **{"val/accuracy": 0.25}))
    (folder / "1" / "run.log").write_text(LOG)
    write_run(folder / "2", 0.3, 0, 2, status="failed", error="RuntimeError: out of memory\nmore", test_accuracy=None)
    (folder / "2" / "run.log").write_text(LOG + "Traceback\n  \x1b[31mline\nRuntimeError: out of memory\n")
    write_run(folder / "3", 0.4, 0, 3, status="running", test_accuracy=None)


def shown(sweeps: list[LiveSweep], roots: list[Path], width: int = 80, height: int | None = None) -> list[str]:
    """Return the page as it looks on a terminal of that width."""
    console = Console(width=width, force_terminal=True, color_system=None, file=Utf8())
    return [text.plain for text in page(sweeps, roots, console, height)]


def state_of_files(folder: Path) -> dict[str, tuple[int, int, int]]:
    """Return what any write to the folder would change."""
    return {str(path): ((found := path.lstat()).st_mtime_ns, found.st_size, found.st_ino)
            for path in [folder, *folder.rglob("*")]}  # fmt: skip


def test_a_sweep_at_work_is_shown_with_what_went_wrong_and_nothing_is_touched(tmp_path: Path) -> None:
    write_running(tmp_path / "sweep")
    watcher = Watcher([tmp_path])
    with locked(tmp_path / "sweep"), locked(tmp_path / "sweep" / "1"):
        before = state_of_files(tmp_path)
        (sweep,) = watcher.look()
        lines = shown([sweep], [tmp_path])
        assert state_of_files(tmp_path) == before
    assert sweep.statuses == {"done": 1, "running": 1, "failed": 1, "interrupted": 1, "pending": 1}
    run = next(run for run in sweep.runs if run.status == "running")
    assert (run.metrics.step, run.num_steps, run.num_epochs) == (14, 50, 5)
    assert run.seconds_left == pytest.approx(1.4 / 14 * 36)
    text = "\n".join(lines)
    assert "1 of 5 jobs done, about 0 s to go, 1 running, 1 failed, 1 interrupted, 1 pending" in " ".join(text.split())
    assert "1  lr=0.2  epoch 2/5  step 14/50  1,234 images/s  4 s left" in text
    assert " 28 %  loss █" in text
    assert " 1.6  val " in text
    assert " 25.00 %" in text
    place = next(place for place, text in enumerate(lines) if text.startswith("  failed  2  lr=0.3"))
    assert "RuntimeError: out of memory" in lines[place]
    assert lines[place + 1 : place + 4] == ["    Traceback", "       [31mline", "    RuntimeError: out of memory"]
    assert "  died  3  lr=0.4  its process is gone" in text
    assert max(map(len, lines)) <= 80


@pytest.mark.parametrize("width", [40, 80, 200])
def test_no_line_is_wider_than_the_terminal_nor_the_page_higher(tmp_path: Path, width: int) -> None:
    write_running(tmp_path)
    with locked(tmp_path / "1"):
        sweeps = Watcher([tmp_path]).look()
        assert max(map(len, shown(sweeps, [tmp_path], width))) <= width
        lines = shown(sweeps, [tmp_path], width, height=6)
    assert len(lines) == 6
    assert "more lines: cifar watch --once shows" in lines[-1]


def test_what_is_over_is_shown_only_where_it_was_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # else the name may be cut
    write_running(tmp_path / "sweep")
    assert Watcher([tmp_path]).look() == []
    assert shown([], [tmp_path])[-1].startswith("Nothing is running in ")
    (sweep,) = Watcher([tmp_path / "sweep"]).look()
    assert (sweep.is_alive, sweep.statuses["interrupted"]) == (False, 2)
    write_run(tmp_path / "alone", 0.1, 0, test_accuracy=0.5)
    (alone,) = Watcher([tmp_path / "alone"]).look()
    assert shown([alone], [tmp_path / "alone"])[2].endswith("alone: completed")


def test_a_run_by_itself_that_failed_is_shown_for_an_hour(tmp_path: Path) -> None:
    write_run(tmp_path / "a" / "b", 0.1, 0, status="failed", error="It broke.", test_accuracy=None)
    (found,) = Watcher([tmp_path]).look()
    assert "It broke." in "\n".join(shown([found], [tmp_path]))
    old = time.time() - 4000
    os.utime(tmp_path / "a" / "b" / "summary.json", (old, old))
    assert Watcher([tmp_path]).look() == []


def test_only_a_process_that_lives_is_taken_for_one(tmp_path: Path) -> None:
    assert not seems_alive(tmp_path)
    with locked(tmp_path):
        assert seems_alive(tmp_path)
        os.utime(tmp_path / OWNER, (time.time() - SILENT_SECONDS - 5,) * 2)
        assert not seems_alive(tmp_path)
    here = os.uname().nodename
    texts = {"process 1 on another-machine": True, "": True, f"process {2**22 + 1} on {here}": False,
             f"process {10**30} on {here}": False, f"process {os.getpid()} on {here} (SLURM job 7)": True}  # fmt: skip
    for text, is_alive in texts.items():
        (tmp_path / OWNER).write_text(text)
        assert seems_alive(tmp_path) == is_alive, text


def test_a_file_is_followed_as_it_grows_is_cut_and_written_again(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    tail = MetricsTail(path)
    assert tail.read().step == 0
    whole = line(1, 1, **{"train/loss": 3.0}) + line(2, 1, **{"train/loss": 2.0})
    path.write_text(whole + line(3, 2)[:10])
    assert (tail.read().step, tail.read().losses) == (2, [3.0, 2.0])
    path.write_text(whole + line(3, 2, **{"train/loss": 1.0}))
    assert (tail.read().step, tail.read().epoch_steps, tail.read().losses) == (3, 2, [3.0, 2.0, 1.0])
    path.write_text(whole)  # a resumed run goes back to its checkpoint …
    assert (tail.read().step, tail.read().losses) == (2, [3.0, 2.0])
    path.write_text(whole + line(3, 2, **{"train/loss": 1.0}))
    assert tail.read().step == 3
    path.write_text(whole + line(3, 2, **{"train/loss": 9.0}) + line(4, 2, **{"train/loss": 8.0}))  # … and beyond
    assert tail.read().losses == [3.0, 2.0, 9.0, 8.0]
    path.unlink()
    assert tail.read().step == 4


@pytest.mark.parametrize("case", range(12))
def test_damaged_and_half_written_files_are_no_crash(tmp_path: Path, case: int) -> None:
    write_running(tmp_path)
    chance = random.Random(case)
    paths = [path for path in tmp_path.rglob("*") if path.is_file()]
    for path in chance.sample(paths, 4):
        content = path.read_bytes()
        junk = [
            content[: len(content) // 2],
            b"",
            b"[" * 5000,
            b'{"status": [1], "config": {"epochs": "x"}}',
            b"\xff\xfe\x00\x1b[2J" * 40,
            b'{"step": 1e999, "epoch": -1}\n{"step": 3, "epoch": {}}\n',
            content + b'{"step": ',
            b"null\n3\n",
        ]
        path.write_bytes(chance.choice(junk))
    (tmp_path / "4").mkdir()
    (tmp_path / "4" / "run.log").symlink_to("/dev/zero")
    watcher = Watcher([tmp_path])
    for _ in range(2):
        lines = shown(watcher.look(), [tmp_path])
        assert all(text.isprintable() for text in lines)
        assert max(map(len, lines)) <= 80


def test_the_length_of_a_run_without_a_log_is_known_after_its_first_epoch(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    write_run(folder, 0.1, 0, status="running", config={"epochs": 4, "seed": 0}, test_accuracy=None)
    write_metrics(folder, 1, 5)
    with locked(folder):
        (run,) = Watcher([tmp_path]).look()[0].runs
        assert (run.num_epochs, run.num_steps) == (4, None)
        write_metrics(folder, 2, 5)
        (run,) = Watcher([tmp_path]).look()[0].runs
        assert (run.metrics.step, run.num_steps) == (100, 200)
        assert run.seconds_left == pytest.approx(100 / 7)


def test_lines_and_bars() -> None:
    assert sparkline([0, 1, 2, 3, 4, 5, 6, 7], 8, False) == "▁▂▃▄▅▆▇█"
    assert sparkline([7, 0], 4, True) == "#_  "
    assert sparkline([1.0] * 100, 5, False) == "▁▁▁▁▁"
    assert sparkline([], 3, False) == "   "
    assert sparkline([float(number) for number in range(800)], 8, False) == "▁▂▃▄▅▆▇█"
    assert (bar(0.5, 4, False), bar(1, 3, True)) == ("━━──", "###")


def test_a_new_summary_is_read_again(tmp_path: Path) -> None:
    write_run(tmp_path / "0", 0.1, 0, status="running", test_accuracy=None)
    watcher = Watcher([tmp_path, tmp_path / "0"])
    assert {run.status for sweep in watcher.look() for run in sweep.runs} == {"died"}
    write_json(tmp_path / "0" / "summary.json", {"status": "completed"})
    assert {run.status for sweep in watcher.look() for run in sweep.runs} == {"completed"}
