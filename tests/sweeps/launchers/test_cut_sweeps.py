"""A sweep of 24 jobs on each engine, killed midway and resumed by one command; its runs equal the uncut ones."""

import re
import shlex
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest

from cifar.sweeps.plan import num_over
from tests.conftest import QUIET, Start
from tests.experiment.test_restore import assert_identical, results
from tests.sweeps.launchers.conftest import RAY_PORT
from tests.sweeps.launchers.cut_runs import wait_until

pytestmark = [pytest.mark.cluster, pytest.mark.slow]
NUM_JOBS = 24
WORDS = [*QUIET, "log_every=2", "device.threads=1", "data.val_size=20", f"seed=range(0,{NUM_JOBS})"]
ENGINES = {
    "basic": [],
    "joblib": ["hydra/launcher=joblib", "hydra.launcher.n_jobs=2"],
    "slurm": ["hydra/launcher=slurm", "hydra.launcher.cpus_per_task=1", "hydra.launcher.mem_gb=1"],
    "ray": ["hydra/launcher=ray", f"hydra.launcher.address=127.0.0.1:{RAY_PORT}"],
}


@pytest.fixture(name="uncut", scope="module")
def _uncut(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """Return what the runs of the sweep have to say when nothing happens to it."""
    from tests.processes import Run

    folder = tmp_path_factory.mktemp("uncut")
    run = Run(folder, ["-m", "cifar", "run", "-m", *WORDS, "hydra.sweep.dir=s"], folder.with_name("uncut-logs"))
    assert run.end(400) == 0, run.text
    return [results(folder / "s" / str(number)) for number in range(NUM_JOBS)]


@pytest.mark.parametrize("engine", ENGINES)
def test_a_sweep_that_is_killed_in_its_midst_equals_the_uncut_one(
    tmp_path: Path, start: Start, request: pytest.FixtureRequest, uncut: list[dict[str, Any]], engine: str
) -> None:
    if engine in ("slurm", "ray"):
        request.getfixturevalue("slurm" if engine == "slurm" else "ray_cluster")
    sweep = tmp_path / "s"
    run = start("-m", *WORDS, *ENGINES[engine], "hydra.sweep.dir=s")
    wait_until(lambda: sweep.exists() and num_over(sweep) >= 5, "five jobs are done", seconds=400)
    run.send(signal.SIGKILL)
    run.end()
    if engine == "slurm":  # its jobs do not end with the terminal
        array = re.search(r"SLURM's (\d+)", run.text)
        assert array
        subprocess.run(["scancel", "--signal=KILL", "--full", array[1]], check=True)
        subprocess.run(["scancel", array[1]], check=True)
    done = num_over(sweep)
    assert done < NUM_JOBS
    typed = [QUIET[0], *(word for word in ENGINES[engine] if "address" in word)]
    again = start(*shlex.split("resume s"), *typed, program=("-m", "cifar"))
    assert again.end(500) == 0, again.text
    assert again.output.count("is done already") >= done
    for number, expected in enumerate(uncut):
        assert_identical(results(sweep / str(number)), expected)
