"""A sweep of 24 jobs on each engine, killed midway and resumed by one command; its runs equal the uncut ones."""

import contextlib
import os
import re
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest

from cifar.base.run_folder import read_summary
from cifar.sweeps.plan import num_over
from tests.conftest import QUIET, Start
from tests.experiment.test_restore import assert_identical, results
from tests.processes import Run
from tests.sweeps.launchers.cut_runs import wait_until
from tests.sweeps.launchers.test_slurm import ask

pytestmark = [pytest.mark.cluster, pytest.mark.slow]
NUM_JOBS = 24
MODEL = "model._target_=tests.tiny_model.Slow"
WORDS = [
    *QUIET, MODEL, "+model.seconds=0.02", "data.val_size=20", "epochs=8", "checkpoint.every_epochs=1",
    "device.threads=1", f"seed=range(0,{NUM_JOBS})",
]  # fmt: skip
ENGINES = {
    "basic": [],
    "joblib": ["hydra/launcher=joblib", "hydra.launcher.n_jobs=2"],
    "slurm": ["hydra/launcher=slurm", "hydra.launcher.cpus_per_task=1", "hydra.launcher.mem_gb=1"],
    "ray": ["hydra/launcher=ray"],
}


@pytest.fixture(name="uncut", scope="module")
def _uncut(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """Return what the runs of the sweep have to say when nothing happens to it."""
    folder = tmp_path_factory.mktemp("uncut")
    run = Run(folder, ["-m", "cifar", "run", "-m", *WORDS, "hydra.sweep.dir=s"], folder.with_name("uncut-logs"))
    assert run.end(400) == 0, run.text
    return [results(folder / "s" / str(number)) for number in range(NUM_JOBS)]


@pytest.fixture(name="words")
def _words(engine: str, request: pytest.FixtureRequest) -> list[str]:
    """Return the words that choose the engine, which has been started."""
    if engine == "slurm":
        request.getfixturevalue("slurm")
    if engine == "ray":
        address = request.getfixturevalue("ray_cluster").address
        return [*ENGINES[engine], f"hydra.launcher.address={address}"]
    return ENGINES[engine]


def is_in_its_midst(sweep: Path) -> bool:
    """Return whether five jobs are done, and another one has saved a part of its epochs."""
    if not sweep.exists() or num_over(sweep) < 5:
        return False
    begun = [path.parent for path in sweep.glob("*/checkpoint.pt")]
    return any(read_summary(run).get("status") == "running" for run in begun)


def kill_jobs(sweep: Path) -> None:
    """Kill the processes in which the jobs run that have begun, without a word."""
    for owner in sweep.glob("*/.lock-owner"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            os.kill(int(owner.read_text().split()[1]), signal.SIGKILL)


@pytest.mark.parametrize("engine", ENGINES)
def test_a_sweep_that_is_killed_in_its_midst_equals_the_uncut_one(
    tmp_path: Path, start: Start, uncut: list[dict[str, Any]], engine: str, words: list[str]
) -> None:
    sweep = tmp_path / "s"
    run = start("-m", *WORDS, *words, "hydra.sweep.dir=s")
    wait_until(lambda: is_in_its_midst(sweep), "some jobs are done", seconds=400)
    kill_jobs(sweep)
    run.send(signal.SIGKILL, to_group=True)
    run.end()
    if engine == "slurm":  # its jobs do not end with the terminal
        array = re.search(r"SLURM's (\d+)", run.text)
        assert array
        subprocess.run(["scancel", array[1]], check=True)
        wait_until(lambda: not ask("squeue", "-h"), "the jobs are gone")
    done = num_over(sweep)
    assert done < NUM_JOBS
    again = start("s", MODEL, *(word for word in words if "address" in word), program=("-m", "cifar", "resume"))
    assert again.end(500) == 0, again.text
    assert again.output.count("is done already") >= done
    assert any(read_summary(sweep / str(number))["times_resumed"] for number in range(NUM_JOBS))
    for number, expected in enumerate(uncut):
        assert_identical(results(sweep / str(number)), expected)
