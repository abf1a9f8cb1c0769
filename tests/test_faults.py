"""Faults done to real processes: signals at random moments, full and read-only disks, locks, killed helpers.

Whatever happened, the run that is resumed equals the one that was left alone.
"""

import contextlib
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cifar.base.locks import is_locked, locked
from cifar.base.sealed import read_checkpoint
from cifar.sweeps.plan import Begun, make_plan, write_plan
from tests.conftest import QUIET, ROOT, SLOW, TINY, Command, Start, read_metrics, read_summary
from tests.experiment.test_restore import assert_identical, results
from tests.processes import small_disk
from tests.tracking.test_wandb_tracker import records

LIMIT_SECONDS = 10  # from the signal to the end


RESUME_SWEEP = ("-m", "cifar", "resume")


def lines_of(folder: Path) -> list[tuple[int, str]]:
    """Return the step and the kind of every line of metrics.jsonl."""
    return [(line["step"], [*line][3]) for line in read_metrics(folder)]


def assert_no_step_is_missing_or_doubled(folder: Path, num_steps: int) -> None:
    """With log_every=1."""
    steps = [line["step"] for line in read_metrics(folder) if "train/loss" in line]
    assert steps == [*range(1, num_steps + 1)]
    assert len(set(lines_of(folder))) == len(lines_of(folder))


@pytest.mark.parametrize(
    ("signum", "code", "resume"),
    [(signal.SIGTERM, 143, "outputs/run"), (signal.SIGINT, 130, "outputs/run/checkpoint.pt")],
)
def test_a_signal_ends_the_step_saves_and_the_run_can_be_resumed(
    tmp_path: Path, start: Start, command: Command, signum: int, code: int, resume: str
) -> None:
    arguments = [*QUIET, *SLOW, "epochs=4", "data.val_size=20"]
    run = start(*arguments, "hydra.run.dir=outputs/run")
    run.wait_for(r"Epoch \[2/4\], Step \[3/6\]")
    begin = time.perf_counter()
    run.send(signum)
    assert run.end() == code
    assert time.perf_counter() - begin < LIMIT_SECONDS
    assert "Stopping: the running step is finished and saved first." in run.text
    assert run.errors.endswith(f"Interrupted. Continue with: cifar resume outputs/run {SLOW[0]}\n")
    assert "Traceback" not in run.text
    folder = tmp_path / "outputs" / "run"
    summary = read_summary(folder)
    assert summary["status"] == "interrupted"
    assert summary["steps"] == read_checkpoint(folder / "checkpoint.pt")["counters"]["step"] >= 9
    config = (folder / ".hydra" / "config.yaml").read_text()

    again = command(f"resume={resume}", SLOW[0], "log_every=1")
    assert again.returncode == 0, again.stderr
    assert f"Resumed at step {summary['steps']} of 24" in again.stdout
    assert_no_step_is_missing_or_doubled(folder, 24)
    assert (folder / ".hydra" / "config.yaml").read_text() == config
    assert (folder / "run.log").read_text().count("Epoch [2/4], Step [3/6]") == 1
    plain = command(*[word for word in arguments if "tiny_model" not in word and "seconds" not in word],
                    "model._target_=tests.tiny_model.Slow", "+model.seconds=0.0", "hydra.run.dir=plain",)  # fmt: skip
    assert plain.returncode == 0, plain.stderr
    one, other = results(folder), results(tmp_path / "plain")
    del one["summary"]["config_hash"], other["summary"]["config_hash"]  # the pause
    assert_identical(one, other)

    done = command(f"resume={resume}", SLOW[0])
    assert (done.returncode, done.stdout.splitlines()[-1][:26]) == (0, "outputs/run is done alread")
    refused = command(f"resume={resume}", SLOW[0], "lr=0.5")
    assert refused.returncode == 1
    assert "lr=0.5 is not possible for the run that is resumed" in refused.stderr
    assert_identical(one["metrics"], results(folder)["metrics"])


def test_a_second_ctrl_c_stops_at_once_with_a_truthful_summary(tmp_path: Path, start: Start) -> None:
    run = start(*QUIET, "model._target_=tests.tiny_model.Slow", "+model.seconds=60", "hydra.run.dir=run")
    summary = tmp_path / "run" / "summary.json"
    run.wait_until(lambda: summary.exists() and read_summary(summary.parent)["status"] == "running")
    time.sleep(0.5)  # the first step begins
    run.send(signal.SIGINT)
    run.wait_for("Once more stops at once")
    time.sleep(0.6)
    begin = time.perf_counter()
    run.send(signal.SIGINT)
    assert run.end() == 130
    assert time.perf_counter() - begin < LIMIT_SECONDS
    assert read_summary(tmp_path / "run")["status"] == "interrupted"


def test_ctrl_c_in_a_terminal_leaves_an_offline_run_that_goes_on_with_the_same_id(
    tmp_path: Path, start: Start, command: Command
) -> None:
    run = start(*TINY, *SLOW, "tracker=wandb", "epochs=3", "hydra.run.dir=runs/one")
    run.wait_for(r"Epoch \[2/3\], Step \[2/8\]")
    begin = time.perf_counter()
    run.send(signal.SIGINT, to_group=True)
    assert run.end() == 130
    assert time.perf_counter() - begin < LIMIT_SECONDS
    assert command("resume=runs/one", SLOW[0]).returncode == 0
    parts = [*(tmp_path / "wandb").glob("replaced-offline-run-*"), *(tmp_path / "wandb").glob("offline-run-*")]
    assert len(parts) == 2
    shown = [next(record["run"] for record in records(part) if record["type"] == "run") for part in parts]
    assert len({(record["run_id"], record["display_name"], record.get("run_group")) for record in shown}) == 1
    steps = [
        [int(record["history"]["item"]["_step"]) for record in records(part) if record["type"] == "history"]
        for part in parts
    ]
    assert steps == [[*range(1, len(steps[0]) + 1)], [*range(1, 25)]]  # the second part holds those of the first too
    assert len(steps[0]) < 24


@pytest.mark.parametrize(
    "signum", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.slow), signal.SIGKILL]
)
def test_a_stopped_sweep_goes_on_where_it_was(tmp_path: Path, start: Start, command: Command, signum: int) -> None:
    run = start("-m", *QUIET, *SLOW, "epochs=4", "+model.build_seconds=0,-1,0.01,0.02", "hydra.sweep.dir=multirun/one")
    run.wait_for("Job 2 starts")
    run.wait_for(r"Epoch \[2/4\], Step \[2/8\]")
    run.send(signum)
    assert run.end() == {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGKILL: -9}[signal.Signals(signum)]
    sweep = tmp_path / "multirun" / "one"
    if signum != signal.SIGKILL:
        assert run.errors.endswith(f"Interrupted. Continue with: cifar resume multirun/one {SLOW[0]}\n")
    statuses = [read_summary(sweep / str(number))["status"] for number in range(3)]
    assert statuses == ["completed", "failed", "running" if signum == signal.SIGKILL else "interrupted"]
    assert not is_locked(sweep / "2")
    assert not (sweep / "3").exists()
    first = (sweep / "0" / "metrics.jsonl").read_bytes()
    cut_at = read_checkpoint(sweep / "2" / "checkpoint.pt")["counters"]["step"]

    # from another folder, and with the same mistake in job 1
    again = start(str(sweep), SLOW[0], program=RESUME_SWEEP)
    assert again.end() == 1
    assert "multirun/one/0 is done already" in again.text
    assert "Job 1 failed: Error in call to target 'tests.tiny_model.Slow'" in again.text
    assert f"Resumed at step {cut_at} of 32" in again.text
    assert (sweep / "0" / "metrics.jsonl").read_bytes() == first
    statuses = [read_summary(sweep / str(number))["status"] for number in range(4)]
    assert statuses == ["completed", "failed", "completed", "completed"]
    for number in (2, 3):
        assert_no_step_is_missing_or_doubled(sweep / str(number), 32)
    assert sorted(path.name for path in sweep.iterdir()) == [
        ".lock", "0", "1", "2", "3", "accuracy_vs_model.build_seconds.png", "accuracy_vs_model.build_seconds.svg",
        "curves.png", "curves.svg", "multirun.yaml", "report.csv", "report.html", "report.md", "runs.csv", "sweep.json",
    ]  # fmt: skip


def test_a_sweep_that_is_done_says_so_and_one_whose_files_changed_is_done_again(
    tmp_path: Path, start: Start, command: Command
) -> None:
    conf = tmp_path / "conf" / "experiment"
    conf.mkdir(parents=True)
    (conf / "mine.yaml").write_text("# @package _global_\nlabel_smoothing: 0.1\n")
    typed = ["--config-dir", str(tmp_path / "conf"), QUIET[0]]
    arguments = [*typed[:2], "-m", *QUIET, "experiment=mine", "seed=1,2", "epochs=2"]
    assert command(*arguments, "hydra.sweep.dir=swept").returncode == 0
    sweep = tmp_path / "swept"
    before = [results(sweep / number) for number in "01"]

    refused = command(*arguments, "hydra.sweep.dir=swept")
    assert refused.returncode == 1
    assert f"already holds a sweep. Continue it with cifar resume swept {' '.join(typed)}, or" in refused.stderr

    for words in ([], typed[:2]):
        refused = command("swept", *words, program=RESUME_SWEEP)
        assert refused.returncode == 1
        assert refused.stderr.endswith(f"continue it with: cifar resume swept {' '.join(typed)}\n") or (
            refused.stderr.endswith(f"continue with: cifar resume swept {' '.join(typed)}\n")
        )

    done = start("swept", *typed, "hydra/launcher=basic", program=RESUME_SWEEP)
    assert done.end() == 0
    assert done.output.endswith("All 2 jobs of swept are done (2 were before).\n")
    assert done.output.count("2 of 2 jobs done") == 1
    assert "Epoch" not in done.text
    assert_identical(before, [results(sweep / number) for number in "01"])

    longer = start("swept", *typed, "epochs=3", program=RESUME_SWEEP)
    assert longer.end() == 0, longer.text
    assert longer.text.count("Resumed at step 16 of 24") == 2

    shorter = start("swept", *typed, "epochs=1", program=RESUME_SWEEP)
    assert shorter.end() == 1
    assert shorter.text.count("epochs=1 is not possible for the run that is resumed: 24 steps are done") >= 2
    assert not [*sweep.glob("*/replaced-*")]

    (conf / "mine.yaml").write_text("# @package _global_\nlabel_smoothing: 0.2\n")
    changed = start("swept", *typed, "epochs=3", program=RESUME_SWEEP)
    assert changed.end() == 1
    assert "configuration files are not what they were when swept was begun: label_smoothing was 0.1 and is 0.2." in (
        changed.errors
    )
    assert not [*sweep.glob("*/replaced-*")]
    again = [*arguments[:-1], "epochs=3", "hydra/launcher=basic", "resume=auto", "hydra.sweep.dir=swept"]
    assert changed.errors.endswith(f"cifar run {shlex.join(again)}\n")
    changed = start(*again)
    assert changed.end() == 0, changed.text
    assert "Job 1 is begun anew; what it had is now in swept/1/replaced-1" in changed.text
    assert "label_smoothing=0.2 is not possible" in changed.text
    for number in "01":
        assert read_summary(sweep / number)["times_resumed"] == 0
        assert read_summary(sweep / number / "replaced-1")["steps"] == 24
        assert (sweep / number / "replaced-1" / ".hydra" / "config.yaml").is_file()
        assert "label_smoothing: 0.2" in (sweep / number / ".hydra" / "config.yaml").read_text()


def test_a_sweep_side_by_side_that_lost_a_worker_goes_on(tmp_path: Path, start: Start) -> None:
    arguments = ["-m", *QUIET, *SLOW, "epochs=6", "seed=0,1,2", "hydra/launcher=joblib", "hydra.launcher.n_jobs=2"]
    run = start(*arguments, "hydra.sweep.dir=side")
    run.wait_for(r"Epoch \[2/6\], Step \[4/8\]")
    owner = next(path for path in (tmp_path / "side").glob("*/.lock-owner"))
    os.kill(int(re.findall(r"process (\d+)", owner.read_text())[0]), signal.SIGKILL)
    assert run.end() == 1
    again = start("side", SLOW[0], program=RESUME_SWEEP)
    again.wait_for(r"Resumed at step \d+ of 48")
    assert again.end() == 0, again.text
    assert again.output.endswith("All 3 jobs of side are done (0 were before).\n")
    assert re.search(r"^Job 2 \(seed=2\): ", again.output, re.MULTILINE)
    assert not re.search(r"^Epoch", again.output, re.MULTILINE)
    for number in range(3):
        assert_no_step_is_missing_or_doubled(tmp_path / "side" / str(number), 48)


def has_stepped(folder: Path) -> bool:
    """Return whether the run in the folder has logged a step."""
    return (folder / "metrics.jsonl").is_file() and bool((folder / "metrics.jsonl").read_text())


@pytest.mark.parametrize("signum", [pytest.param(signal.SIGINT, marks=pytest.mark.slow), signal.SIGTERM])
def test_a_signal_stops_a_sweep_side_by_side_and_all_its_jobs_are_saved(
    tmp_path: Path, start: Start, signum: int
) -> None:
    arguments = ["-m", *QUIET, *SLOW, "epochs=100", "seed=0,1,2", "hydra/launcher=joblib", "hydra.launcher.n_jobs=2"]
    run = start(*arguments, "hydra.sweep.dir=side", "checkpoint.every_epochs=null")
    run.wait_until(lambda: all(has_stepped(tmp_path / "side" / number) for number in "01"))
    begin = time.perf_counter()
    run.send(signum, to_group=signum == signal.SIGINT)
    assert run.end() == 128 + signum
    assert time.perf_counter() - begin < LIMIT_SECONDS
    assert run.errors.endswith(f"Interrupted. Continue with: cifar resume side {SLOW[0]}\n")
    for number in range(2):
        summary = read_summary(tmp_path / "side" / str(number))
        assert summary["status"] == "interrupted"
        state = read_checkpoint(tmp_path / "side" / str(number) / "checkpoint.pt")
        assert summary["steps"] == state["counters"]["step"] >= 1
    assert not (tmp_path / "side" / "2" / "summary.json").exists()


@pytest.mark.slow
def test_a_signal_while_a_job_side_by_side_is_being_built_loses_nothing(tmp_path: Path, start: Start) -> None:
    arguments = ["-m", *QUIET, *SLOW, "epochs=10", "hydra/launcher=joblib", "hydra.launcher.n_jobs=2"]
    run = start(*arguments, "+model.build_seconds=0,3", "hydra.sweep.dir=side")
    owners = [tmp_path / "side" / number / ".lock-owner" for number in "01"]
    run.wait_until(lambda: has_stepped(owners[0].parent) and owners[1].exists())
    assert not has_stepped(owners[1].parent)
    run.send(signal.SIGTERM)
    assert run.end() == 128 + signal.SIGTERM
    assert run.errors.endswith(f"Interrupted. Continue with: cifar resume side {SLOW[0]}\n")
    summaries = [read_summary(owner.parent) for owner in owners]
    assert [summary["status"] for summary in summaries] == ["interrupted"] * 2
    assert summaries[0]["steps"] >= 1
    assert summaries[1]["steps"] == 0
    again = start("side", SLOW[0], "hydra/launcher=basic", program=RESUME_SWEEP)
    assert again.end() == 0, again.text
    assert again.output.endswith("All 2 jobs of side are done (0 were before).\n")
    for owner in owners:
        assert_no_step_is_missing_or_doubled(owner.parent, 80)


def test_two_runs_in_one_folder(tmp_path: Path, start: Start, command: Command) -> None:
    run = start(*QUIET, *SLOW, "epochs=100", "hydra.run.dir=one")
    run.wait_for(r"Epoch \[2/")
    for other in (command("resume=auto", *QUIET, "hydra.run.dir=one"), command("resume=one")):
        assert other.returncode == 1
        assert re.search(rf"one is in use by process {run.pid} on {os.uname().nodename}\.", other.stderr)
        assert "Traceback" not in other.stderr
    run.send(signal.SIGKILL)
    assert run.end() == -signal.SIGKILL
    steps = read_checkpoint(tmp_path / "one" / "checkpoint.pt")["counters"]["step"]
    again = command("resume=one", SLOW[0], f"epochs={steps // 8 + 1}")
    assert again.returncode == 0, again.stderr
    assert_no_step_is_missing_or_doubled(tmp_path / "one", steps + 8)


def test_a_sweep_that_still_runs_is_not_resumed(tmp_path: Path, start: Start) -> None:
    with locked(tmp_path / "sweep"):
        write_plan(tmp_path / "sweep", replace(make_plan(["lr=0.1"], 0), begun=Begun(["lr=0.1"], [], [], "/", {})))
        again = start(str(tmp_path / "sweep"), program=RESUME_SWEEP)
        assert again.end() == 1
    assert f"is in use by process {os.getpid()} on" in again.text
    assert "Traceback" not in again.text


@pytest.mark.parametrize("fill", ["checkpoint", "metrics"])
def test_a_full_disk_ends_the_run_with_one_message_and_it_goes_on_when_there_is_room(
    tmp_path: Path, command: Command, start: Start, fill: str
) -> None:
    disk = tmp_path / "disk"
    with small_disk(disk, "160k"):
        arguments = [*QUIET, *SLOW, "epochs=4", "hydra.run.dir=disk/run"]
        if fill == "metrics":
            arguments += ["checkpoint.every_epochs=3"]
        run = start(*arguments)
        run.wait_for(r"Epoch \[2/4\], Step \[3/8\]" if fill == "checkpoint" else r"Epoch \[4/4\], Step \[3/8\]")
        with (disk / "rest").open("wb", buffering=0) as file, contextlib.suppress(OSError):
            while file.write(b"x" * 4096):
                pass
        assert run.end() == 1
        name = "checkpoint.pt" if fill == "checkpoint" else r"(metrics.jsonl|checkpoint.pt)"
        assert re.search(rf"disk/run/{name} can't be written: No space left on device\.", run.text)
        assert "Traceback" not in run.text
        assert "Logging error" not in run.text
        step = read_checkpoint(disk / "run" / "checkpoint.pt", must_be_sealed=True)["counters"]["step"]
        assert step == (8 if fill == "checkpoint" else 24)

        (disk / "rest").unlink()
        again = command("resume=disk/run", SLOW[0])
        assert again.returncode == 0, again.stderr
        assert f"Resumed at step {step} of 32" in again.stdout
        assert_no_step_is_missing_or_doubled(disk / "run", 32)
        assert command(*arguments[:-1], "hydra.run.dir=plain", "checkpoint.every_epochs=1").returncode == 0  # fmt: skip
        assert_identical(results(disk / "run"), results(tmp_path / "plain"))


def test_a_folder_that_becomes_unwritable(tmp_path: Path, start: Start, command: Command) -> None:
    folder = tmp_path / "run"
    run = start(*QUIET, *SLOW, "epochs=4", "hydra.run.dir=run")
    run.wait_for(r"Epoch \[2/4\], Step \[3/8\]")
    entries = [str(folder), *map(str, folder.iterdir())]
    if subprocess.run(["chattr", "+i", *entries], capture_output=True).returncode:
        pytest.skip("chattr is not allowed here")
    try:
        assert run.end() == 1
    finally:
        subprocess.run(["chattr", "-i", *entries], check=True)
    assert "run/metrics.jsonl can't be written: Operation not permitted. The run stops." in run.text
    assert "run/summary.json can't be written: Operation not permitted." in run.text
    assert "Traceback" not in run.text
    assert read_summary(folder)["status"] == "running"
    assert not is_locked(folder)
    again = command("resume=run", SLOW[0])
    assert again.returncode == 0, again.stderr
    assert_no_step_is_missing_or_doubled(folder, 32)


def test_a_killed_dashboard_does_not_stop_the_training(tmp_path: Path, start: Start) -> None:
    run = start(*TINY, *SLOW, "tracker=wandb", "epochs=3", "hydra.run.dir=run")
    run.wait_for(r"Epoch \[1/3\], Step \[3/8\]")
    cores = wandb_cores_of(run.pid)
    assert cores
    for core in cores:
        os.kill(core, signal.SIGKILL)
    assert run.end() == 0, run.text
    assert run.text.count("The dashboard failed and gets nothing more from this run") == 1
    assert_no_step_is_missing_or_doubled(tmp_path / "run", 24)
    assert read_summary(tmp_path / "run")["status"] == "completed"


def wandb_cores_of(pid: int) -> list[int]:
    """Return wandb's service processes below a process."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            if parent == pid and b"wandb" in (entry / "cmdline").read_bytes():
                found.append(int(entry.name))
    return found


def test_a_dashboard_whose_folder_cant_be_written_does_not_stop_the_training(tmp_path: Path, command: Command) -> None:
    (tmp_path / "wandb").write_text("a file where the folder should be")
    result = command(*TINY, "tracker=wandb", "hydra.run.dir=run")
    assert result.returncode == 0, result.stderr
    assert result.stdout.count("The dashboard failed and gets nothing more from this run") == 1
    assert "Traceback" not in result.stdout + result.stderr
    assert read_summary(tmp_path / "run")["status"] == "completed"


def random_faults(folder: Path, name: str, number: int) -> dict[str, int]:
    """Let `number` signals fall on tiny runs at random moments; check every run against the one left alone."""
    result = subprocess.run(
        [sys.executable, "-m", "tests.random_faults", str(folder), name, str(number)],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr
    counts: dict[str, int] = json.loads(result.stdout.splitlines()[-1])
    expected = results(folder / "uncut")
    for index in range(counts["runs"]):
        run: dict[str, Any] = results(folder / f"run{index}")
        assert_identical(expected, run, f"run{index}")
    assert counts["signals"] == number
    assert counts["runs"] >= 1
    return counts


@pytest.mark.parametrize("name", ["KILL"])
def test_signals_at_a_few_random_moments(tmp_path: Path, name: str) -> None:
    random_faults(tmp_path, name, 3)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "number"), [("KILL", 200), ("TERM", 50), ("INT", 50)])
def test_signals_at_many_random_moments(tmp_path: Path, name: str, number: int) -> None:
    counts = random_faults(tmp_path, name, number)
    print(name, counts)
    assert counts["before_first_checkpoint"] < number / 2
    assert counts["late"] < number / 5
    if name == "KILL":
        assert counts["torn_writes"] >= 1  # some fell into the midst of writing a file
