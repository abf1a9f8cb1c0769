"""One run on several nodes: the script of docs/scaling.md on a real SLURM, whose two tasks stand for two nodes."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from cifar.base.run_folder import read_summary
from tests.commands.app.test_ranks import NET, Torchrun, assert_equal
from tests.conftest import ROOT
from tests.sweeps.launchers.cut_runs import wait_for_step, wait_until
from tests.sweeps.launchers.test_slurm import ask

pytestmark = [pytest.mark.cluster, pytest.mark.slow]
WORDS = [*NET, "epochs=20", "checkpoint.every_epochs=1", "device.sync_batch_norm=true"]
HERE = {
    "--nodes=2 --ntasks-per-node=1 --gpus-per-node=4": "--nodes=1 --ntasks-per-node=2 --mem=3000",
    " --cpus-per-task=16 --requeue": " --cpus-per-task=1 --requeue",
    "srun --cpus-per-task=16": "srun --cpus-per-task=1",
    "OMP_NUM_THREADS=4": "OMP_NUM_THREADS=1",
    "--nproc-per-node=4": "--nproc-per-node=1",
    "run.py device=cuda hydra.run.dir=outputs/mine": f"{ROOT / 'run.py'} {' '.join(WORDS)} hydra.run.dir=run",
}


def script() -> str:
    """Return the script that stands in the docs, for two tasks of this machine."""
    (found,) = re.findall(r"```sh\n( +#!/bin/bash\n.*?)```", (ROOT / "docs" / "scaling.md").read_text(), re.DOTALL)
    for theirs, ours in HERE.items():
        assert found.count(theirs) == 1, theirs
        found = found.replace(theirs, ours)
    return re.sub(r"^  ", "", found, flags=re.MULTILINE)


def test_a_run_on_two_nodes_is_requeued_and_ends_as_one_that_was_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, slurm: Path
) -> None:
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    (tmp_path / "job.sh").write_text(script())
    submitted = subprocess.run(
        ["sbatch", "--parsable", "--output=log", "job.sh"], cwd=tmp_path, check=True, capture_output=True, text=True
    )
    job, run = submitted.stdout.strip(), tmp_path / "run"
    wait_for_step(run, 11)
    subprocess.run(["scontrol", "requeue", job], check=True)
    wait_until(lambda: not ask("squeue", "-h"), "the end")
    text = (tmp_path / "log").read_text()
    assert text.count("Interrupted. Continue with: cifar resume run") == 1, text
    assert text.count("Results: run") == 1, text
    assert ", 2 processes; 204 training, 50 validation" in text
    assert read_summary(run)["times_resumed"] == 1

    uncut = Torchrun(tmp_path, 2, *WORDS, "hydra.run.dir=uncut")
    assert uncut.end() == 0, uncut.text
    assert_equal(run, tmp_path / "uncut", 0)
