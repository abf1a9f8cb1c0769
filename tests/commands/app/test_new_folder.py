"""Folders named by the time, taken by several commands at once."""

from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path

import pytest

from cifar.commands.app.new_folder import claim
from tests import in_process
from tests.conftest import QUIET, Command, Start, read_summary

# cifar.commands.tune at a moment that is always the same.
TUNE_THEN = """
import datetime
import sys
class Now(datetime.datetime):
    now = classmethod(lambda cls: cls(2026, 1, 2, 3, 4, 5))
datetime.datetime = Now
from cifar.commands.main import main
main(["tune", *sys.argv[1:]])
"""
YEAR = "${now:%Y}"  # as the seconds of the default do, but equal for all runs of a test


def test_everybody_who_claims_a_folder_gets_one_alone(tmp_path: Path) -> None:
    with ThreadPoolExecutor(16) as pool:
        claimed = [*pool.map(lambda _: claim(tmp_path / "date" / "time"), range(64))]
    expected = {"time", *(f"time-{number}" for number in range(1, 64))}
    assert {folder.name for folder in claimed} == {path.name for path in (tmp_path / "date").iterdir()} == expected


def test_a_folder_that_cant_be_made_is_hydras_to_complain_of(tmp_path: Path, command: Command) -> None:
    (tmp_path / "outputs").write_text("a file")
    result = command(*QUIET)
    assert result.returncode == 1
    assert "outputs" in result.stderr
    assert "Traceback" not in result.stderr


def test_runs_that_start_at_the_same_time_all_run(tmp_path: Path, start: Start) -> None:
    runs = [start(*QUIET, f"seed={seed}", f"hydra.run.dir=outputs/{YEAR}") for seed in range(3)]
    assert [run.end() for run in runs] == [0, 0, 0]
    year = str(datetime.now().year)
    folders = [tmp_path / "outputs" / name for name in (year, f"{year}-1", f"{year}-2")]
    assert sorted(path.name for path in (tmp_path / "outputs").iterdir()) == [folder.name for folder in folders]
    assert sorted(read_summary(folder)["seed"] for folder in folders) == [0, 1, 2]
    for folder in folders:
        (said,) = [run for run in runs if run.output.endswith(f"Results: {folder.relative_to(tmp_path)}\n")]
        assert f"Results: outputs/{folder.name}\n" in said.output
        assert (folder / "run.log").read_text().count("Results: ") == 1


def test_sweeps_that_start_at_the_same_time_all_run(tmp_path: Path, start: Start) -> None:
    words = ["-m", *QUIET, rf"hydra.sweep.dir='it\'s/{YEAR}'"]
    launchers = ("basic", "joblib")  # the latter composes the jobs' configurations in other processes
    runs = [start(*words, f"seed={seed},5", f"hydra/launcher={name}") for seed, name in enumerate(launchers)]
    assert [run.end() for run in runs] == [0, 0], runs[0].text + runs[1].text
    year = str(datetime.now().year)
    sweeps = [tmp_path / "it's" / name for name in (year, f"{year}-1")]
    assert sorted(path.name for path in (tmp_path / "it's").iterdir()) == [sweep.name for sweep in sweeps]
    seeds = [[read_summary(sweep / job)["seed"] for job in "01"] for sweep in sweeps]
    assert sorted(seeds) == [[0, 5], [1, 5]]
    again = start(str(sweeps[1]), QUIET[0], "hydra/launcher=basic", program=("-m", "cifar", "resume"))
    assert again.end() == 0, again.text
    assert "All 2 jobs of" in again.text


def test_a_folder_that_is_named_otherwise_is_taken_as_it_is(tmp_path: Path, command: Command) -> None:
    assert command(*QUIET, "hydra.run.dir=one").returncode == 0
    again = command(*QUIET, "hydra.run.dir=one")
    assert again.returncode == 1
    assert "already holds a run" in again.stderr
    done = command(*QUIET, "resume=auto", "hydra.run.dir=one")
    assert done.returncode == 0
    assert "is done already" in done.stdout
    assert [path.name for path in tmp_path.iterdir() if path.is_dir()] == ["one"]


def test_searches_that_start_at_the_same_time_all_run(tmp_path: Path, start: Start) -> None:
    words = [*QUIET, "lr=interval(0.001, 0.1)", "data.val_size=20", "trials=1"]
    (tmp_path / "tune_then.py").write_text(TUNE_THEN)
    runs = [start(*words, f"seed={seed}", program=(str(tmp_path / "tune_then.py"),)) for seed in range(2)]
    assert [run.end() for run in runs] == [0, 0], runs[0].text + runs[1].text
    folders = [tmp_path / "multirun" / "2026-01-02" / name for name in ("03-04-05", "03-04-05-1")]
    assert sorted(read_summary(folder / "0")["seed"] for folder in folders) == [0, 1]


def test_resume_auto_takes_the_folder_that_a_file_names(tmp_path: Path, command: Command) -> None:
    words = [*QUIET, "experiment=plateau", "data.val_size=20", "resume=auto"]
    begun, again = (command(*words, "epochs=1", "schedule.every_epochs=1") for _ in range(2))
    assert (begun.returncode, again.returncode) == (0, 0), begun.stderr + again.stderr
    assert "outputs/plateau/tiny is done already" in again.stdout
    assert [path.name for path in (tmp_path / "outputs").iterdir()] == ["plateau"]
    assert read_summary(tmp_path / "outputs" / "plateau" / "tiny")["status"] == "completed"


OWN_FOLDERS = {
    "named": ("lr: 0.1\nhydra: {run: {dir: outputs/named}}", False),
    "timed": ("hydra: {run: {dir: 'outputs/x-${now:%Y}'}}", True),
    "timed_elsewhere": ("hydra: {run: {dir: 'outputs/${hydra.job.name}'}, job: {name: '${now:%Y}'}}", True),
    "asks": ("resume: auto\nlr: 0.1", True),
}


@pytest.mark.parametrize("name", OWN_FOLDERS)
def test_resume_auto_refuses_a_folder_named_by_the_time_whoever_names_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    text, is_refused = OWN_FOLDERS[name]
    (tmp_path / "conf" / "experiment").mkdir(parents=True)
    (tmp_path / "conf" / "experiment" / "own.yaml").write_text(f"# @package _global_\n{text}\n")
    resume = [] if name == "asks" else ["resume=auto"]
    outcome = in_process.call("--config-dir", "conf", *QUIET, "experiment=own", *resume)
    if is_refused:
        message = "resume=auto needs a folder that is the same every time: add hydra.run.dir=outputs/NAME.\n"
        assert (outcome.code, outcome.errors) == (1, message)
    else:
        assert outcome.code == 0, outcome.errors
    assert (tmp_path / "outputs").exists() != is_refused
