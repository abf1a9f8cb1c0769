"""What is asked of SLURM and what is made of its answers, with commands that answer in its place."""

import logging
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hydra.core.utils import JobStatus
from omegaconf import OmegaConf

from cifar.base import signals
from cifar.base.errors import UserError
from cifar.base.run_folder import write_json
from cifar.sweeps.launchers import killed, queue, slurm
from cifar.sweeps.launchers.elsewhere import Elsewhere, has_saved, plain_options
from cifar.sweeps.plan import Begun, make_plan, write_plan
from cifar.sweeps.state import is_under_way, job_states, state_text
from tests.conftest import ROOT

SHIPPED = plain_options({"all": OmegaConf.load(ROOT / "conf/hydra/launcher/slurm.yaml")})["all"]
OPTIONS: dict[str, Any] = {key: value for key, value in SHIPPED.items() if key != "_target_"} | {"wait": False}


@pytest.fixture(name="answers")
def _answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a folder whose programs stand for SLURM's: what they are to do is written there by the test."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}/usr/bin{os.pathsep}/bin")
    for name, text in (("srun", ""), ("sbatch", "echo Submitted batch job 7"), ("squeue", "")):
        answer(folder, name, text)
    return folder


def answer(folder: Path, name: str, text: str) -> None:
    (folder / name).write_text(f"#!/bin/sh\n{text}\n")
    (folder / name).chmod(0o755)


def sweep_of(folder: Path, *hydra: str) -> tuple[Elsewhere, list[list[str]]]:
    """Return a sweep of two jobs in the folder, and the jobs' words."""
    folder.mkdir()
    begun = Begun(["seed=0,1"], ["hydra/launcher=slurm", *hydra], [], str(folder.parent), {})
    write_plan(folder, replace(make_plan(["seed=0,1"], 0), begun=begun))
    config = OmegaConf.create({"hydra": {"sweep": {"dir": str(folder)}}})
    elsewhere = Elsewhere(None, print, config)  # type: ignore[arg-type]
    return elsewhere, [[f"seed={number}", f"+hydra.job.num={number}"] for number in range(2)]


@pytest.fixture(autouse=True)
def _numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slurm, "number_of", lambda words: int(words[0][-1]))


def test_the_batch_script_asks_for_what_the_options_say(tmp_path: Path, answers: Path, caplog: Any) -> None:
    elsewhere, jobs = sweep_of(
        tmp_path / "s", "hydra.launcher.partition=gpu", "hydra.launcher.setup=[module load cuda]"
    )
    options = OPTIONS | {
        "partition": "gpu", "gpus_per_node": 1, "setup": ["module load cuda"], "qos": "long", "account": 12,
        "additional_parameters": {"mail-type": "END"}, "cpus_per_task": 3, "mem_gb": 8, "timeout_min": 60,
    }  # fmt: skip
    slurm.refuse_impossible_options(options)
    with caplog.at_level(logging.INFO):
        (first, second) = slurm.launch(elsewhere, options, jobs)
    assert first.status is second.status is JobStatus.UNKNOWN
    (path,) = (tmp_path / "s/.submitit").glob("*.sh")
    lines = path.read_text().splitlines()
    for line in ("partition=gpu", "gpus-per-node=1", "qos=long", "account=12", "mail-type=END", "cpus-per-task=3",
                 "mem=8GB", "time=60", "requeue", "array=0-1%2", "signal=USR2@120"):  # fmt: skip
        assert f"#SBATCH --{line}" in lines
    assert "module load cuda" in lines
    assert any(line.startswith("srun ") and " --cpus-per-task=3 " in line for line in lines)
    assert queue.read_submitted(tmp_path / "s") == {0: "7_0", 1: "7_1"}
    shown = os.path.relpath(tmp_path / "s")
    assert (
        f"Wait for them: cifar resume {shown} 'hydra.launcher.setup=[module load cuda]' hydra.launcher.wait=true. "
        in caplog.text
    )


def test_a_sweep_on_a_partition_of_ones_own_is_continued_without_typing_it_again(tmp_path: Path) -> None:
    sweep_of(tmp_path / "s", "hydra.launcher.partition=gpu", "hydra.launcher.account=lab-7")
    assert slurm.how_to_look(tmp_path / "s", {0: "7_0"}, waits=True).endswith(
        f"Wait for them: cifar resume {os.path.relpath(tmp_path / 's')}. Stop them: scancel 7"
    )


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("setup", "module load cuda", r"it takes a list of shell commands, as in \[module load cuda\], or null"),
        ("partition", ["gpu"], "it takes a name, or null"),
        ("additional_parameters", ["--mail-type=END"], "it takes options of sbatch with their values"),
        ("timeout_min", 0, "it takes a whole number of minutes"),
    ],
)
def test_impossible_options_are_refused(option: str, value: object, message: str) -> None:
    with pytest.raises(UserError, match=message):
        slurm.refuse_impossible_options(OPTIONS | {option: value})


def test_what_slurm_does_not_take_is_one_message(tmp_path: Path, answers: Path) -> None:
    answer(answers, "sbatch", "echo 'sbatch: error: invalid partition specified: nowhere' >&2; exit 1")
    elsewhere, jobs = sweep_of(tmp_path / "s")
    with pytest.raises(UserError, match=r"SLURM does not take the jobs: .*invalid partition specified: nowhere"):
        slurm.launch(elsewhere, OPTIONS | {"partition": "nowhere"}, jobs)
    assert queue.read_submitted(tmp_path / "s") == {}


def test_without_slurm_another_launcher_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    elsewhere, jobs = sweep_of(tmp_path / "s")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match=r"no commands of SLURM .* or use hydra/launcher=joblib"):
        slurm.launch(elsewhere, OPTIONS, jobs)


def test_jobs_that_wait_are_queued_and_not_submitted_again(tmp_path: Path, answers: Path) -> None:
    elsewhere, jobs = sweep_of(tmp_path / "s")
    slurm.launch(elsewhere, OPTIONS, jobs)
    answer(answers, "squeue", "echo 7_0 PENDING")
    assert job_states(tmp_path / "s") == {0: "queued", 1: "not begun"}
    assert state_text(tmp_path / "s") == "2 jobs: 1 queued, 1 not begun"
    answer(answers, "sbatch", "echo Submitted batch job 8")
    slurm.launch(elsewhere, OPTIONS, jobs)
    assert queue.read_submitted(tmp_path / "s") == {0: "7_0", 1: "8"}


def test_nothing_is_submitted_while_squeue_does_not_answer(
    tmp_path: Path, answers: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere, jobs = sweep_of(tmp_path / "s")
    slurm.launch(elsewhere, OPTIONS, jobs)
    answer(answers, "squeue", "echo 'slurm_load_jobs error: Unable to contact slurm controller' >&2; exit 1")
    answer(answers, "sbatch", "echo Submitted batch job 8")
    with pytest.raises(
        UserError, match=r"squeue does not answer, .* No more are submitted\. Try again later: cifar resume"
    ):
        slurm.launch(elsewhere, OPTIONS, jobs)
    assert set(queue.read_submitted(tmp_path / "s").values()) == {"7_0", "7_1"}
    assert is_under_way(tmp_path / "s")
    assert state_text(tmp_path / "s") == "2 jobs: 2 unknown: squeue does not answer"
    monkeypatch.setenv("PATH", str(tmp_path))  # the folder on a machine without SLURM
    assert state_text(tmp_path / "s") == "2 jobs: 2 not begun"


def grow_old(path: Path) -> None:
    """Let the file be 100 seconds old."""
    before = path.stat().st_mtime - 100
    os.utime(path, (before, before))


@pytest.mark.parametrize(
    ("state", "signum", "saved", "asked", "said"),
    [
        (None, signals.NEAR_LIMIT, True, True, "is saved, and SLURM starts it again"),
        (None, 15, True, False, "is gone for SLURM, which says whether it starts again"),
        ("RUNNING", signals.NEAR_LIMIT, None, False, "came to no step before its time limit"),
        ("RUNNING", signals.NEAR_LIMIT, True, True, "is saved, and SLURM starts it again"),
        ("RUNNING", signals.NEAR_LIMIT, False, False, "came to no step before its time limit"),
        ("RUNNING", 15, False, True, "is saved, and SLURM starts it again"),
        ("COMPLETING", 15, True, False, "is COMPLETING for SLURM, which says whether it starts again"),
    ],
)
def test_who_starts_an_interrupted_job_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: Any, state: str | None, signum: int, saved: bool | None,
    asked: bool,
    said: str,
) -> None:  # fmt: skip
    requeued: list[str] = []
    monkeypatch.setattr(queue, "states", lambda ids: None if state is None else dict.fromkeys(ids, state))
    monkeypatch.setattr(queue, "requeue", requeued.append)
    if saved is not False:
        (tmp_path / "checkpoint.pt").touch()
    if saved is None:  # before this start
        grow_old(tmp_path / "checkpoint.pt")
    with caplog.at_level(logging.INFO):
        slurm.start_again(tmp_path, 3, "7_3", 60.0, signum)
    assert requeued == (["7_3"] if asked else [])
    assert said in caplog.text


def test_whether_something_was_saved_is_told_by_the_file_systems_clock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not has_saved(tmp_path, 60)
    checkpoint = tmp_path / "checkpoint.pt"
    checkpoint.touch()
    for module in ("cifar.base.locks", "cifar.sweeps.launchers.elsewhere"):  # a node that is years behind
        monkeypatch.setattr(f"{module}.time", lambda: 0.0, raising=False)
    assert has_saved(tmp_path, 60)
    grow_old(checkpoint)
    assert not has_saved(tmp_path, 60)


def test_a_process_that_was_killed_is_started_again_once_without_a_save(tmp_path: Path) -> None:
    queue.write_submitted(tmp_path, {0: "7_0"})
    assert killed.may_go_on(tmp_path, "7_0", 60, num_restarts=0)
    assert not killed.may_go_on(tmp_path, "7_0", 60, num_restarts=1)
    (tmp_path / "0").mkdir()
    write_json(tmp_path / "0/summary.json", {"job": 0})
    (tmp_path / "0/checkpoint.pt").touch()
    assert killed.may_go_on(tmp_path, "7_0", 60, num_restarts=5)
    assert not killed.may_go_on(tmp_path, "8_0", 60, num_restarts=5)
    grow_old(tmp_path / "0/checkpoint.pt")
    assert not killed.may_go_on(tmp_path, "7_0", 60, num_restarts=5)
