"""What is written in place in a run's folder goes through no link, and is noticed when it vanishes."""

import logging
import os
import shutil
from pathlib import Path

import pytest

from cifar.base.errors import UserError
from cifar.base.in_place import IN_PLACE, RunLog, Watched, refuse_links
from cifar.base.locks import LOCK, locked
from cifar.experiment.run import run
from cifar.tracking.tracking import MetricsFile
from cifar.training.trainer import Trainer
from tests.conftest import QUIET, Command, Compose, read_metrics, read_summary


@pytest.mark.parametrize("name", IN_PLACE)
@pytest.mark.parametrize("exists", [True, False])
def test_a_link_in_the_folder_is_refused_and_its_target_stays_as_it_is(tmp_path: Path, name: str, exists: bool) -> None:
    victim, folder = tmp_path / "victim", tmp_path / "run"
    folder.mkdir()
    if exists:
        victim.write_text("precious")
    (folder / name).symlink_to(victim)
    with pytest.raises(UserError, match=f"{name} is a link to another file"), locked(folder):
        pytest.fail("it was not refused")
    assert victim.exists() == exists
    assert not exists or victim.read_text() == "precious"


def test_a_folder_that_is_a_link_is_allowed(tmp_path: Path) -> None:
    (tmp_path / "scratch").mkdir()
    (tmp_path / "run").symlink_to(tmp_path / "scratch")
    with locked(tmp_path / "run"):
        MetricsFile(tmp_path / "run" / "metrics.jsonl").log({"lr": 0.1}, step=1, epoch=1)
    assert len(read_metrics(tmp_path / "scratch")) == 1


def test_no_link_is_followed_even_if_it_comes_after_the_check(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious")
    for name in ("metrics.jsonl", "run.log"):
        (tmp_path / name).symlink_to(victim)
    with pytest.raises(OSError, match="symbolic link"):
        MetricsFile(tmp_path / "metrics.jsonl")
    handler = RunLog(str(tmp_path / "run.log"))
    handler.emit(logging.LogRecord("name", logging.INFO, "file", 1, "a line", (), None))
    handler.close()
    assert victim.read_text() == "precious"
    with pytest.raises(UserError):
        refuse_links(tmp_path)


def test_metrics_that_vanish_or_change_are_noticed(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    for change in (path.unlink, lambda: path.replace(tmp_path / "moved"), lambda: shutil.copy(path, tmp_path / "copy")):
        metrics = MetricsFile(path)
        metrics.log({"lr": 0.1}, step=1, epoch=1)
        change()
        if (tmp_path / "copy").exists():
            (tmp_path / "copy").replace(path)  # the same lines, but another file
        for use in (lambda: metrics.log({"lr": 0.1}, step=2, epoch=1), metrics.state):  # noqa: B023
            with pytest.raises(UserError, match=r"metrics\.jsonl has been removed or replaced by another program"):
                use()
    metrics = MetricsFile(path)
    with path.open("ab") as file:
        file.write(b"of another run\n")
    with pytest.raises(UserError, match="has been changed by another program"):
        metrics.log({"lr": 0.1}, step=1, epoch=1)


@pytest.mark.parametrize("name", [LOCK, "metrics.jsonl"])
def test_a_run_whose_lock_or_metrics_vanish_stops_and_leaves_the_folder_to_the_other(
    tmp_path: Path, compose: Compose, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    take_step = Trainer.take_step

    def vanish(trainer: Trainer, *batch: object) -> float:
        if trainer.counters.step == 3:
            (tmp_path / name).unlink()
            if name == LOCK:
                (tmp_path / "summary.json").write_text('{"status": "running", "of": "the other run"}')
        return take_step(trainer, *batch)  # type: ignore[arg-type]

    monkeypatch.setattr(Trainer, "take_step", vanish)
    with locked(tmp_path), pytest.raises(UserError, match=f"{name} has been removed or replaced by another program"):
        run(compose(*QUIET), tmp_path)
    assert not (tmp_path / "metrics.jsonl").exists() or len(read_metrics(tmp_path)) == 1
    assert not (tmp_path / "checkpoint.pt").exists()
    summary = read_summary(tmp_path)
    assert summary.get("of") == ("the other run" if name == LOCK else None)
    assert summary["status"] == ("running" if name == LOCK else "failed")


def test_a_file_that_was_never_there_is_not_missed(tmp_path: Path) -> None:
    watched = Watched(tmp_path / LOCK)
    watched.check()
    (tmp_path / LOCK).touch()
    watched.check()


def test_run_log_is_written_as_before(tmp_path: Path, command: Command) -> None:
    result = command(*QUIET, "hydra.run.dir=run")
    assert result.returncode == 0, result.stderr
    lines = (tmp_path / "run" / "run.log").read_text().splitlines()
    assert lines[0].endswith("test images") or "parameters on" in lines[0]
    assert "[cifar.experiment.run][INFO] Results: run" in lines[-1]
    os.replace(tmp_path / "run" / "run.log", tmp_path / "log")
    (tmp_path / "run" / "run.log").symlink_to(tmp_path / "log")
    before = (tmp_path / "log").read_bytes()
    refused = command("resume=run", QUIET[0], "epochs=2")
    assert refused.returncode == 1
    assert refused.stderr.count("\n") == 1
    assert "run.log is a link to another file" in refused.stderr
    assert (tmp_path / "log").read_bytes() == before
