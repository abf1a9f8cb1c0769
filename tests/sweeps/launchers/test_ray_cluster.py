"""Sweeps on a real Ray cluster of two nodes: stopped, with a killed process, with a node that dies, and resumed."""

import os
import re
import signal
from pathlib import Path

import pytest

from cifar.base.run_folder import read_summary
from tests.conftest import Command, Start
from tests.sweeps.launchers.cut_runs import MODEL, WORDS, assert_as_left_alone, step, wait_for_step
from tests.sweeps.launchers.engines import RayCluster, kill_tree

pytestmark = pytest.mark.cluster
RESUME = ("-m", "cifar", "resume")


def process(run: Path) -> int:
    """Return the process that works in the run's folder."""
    found = re.match(r"process (\d+) ", (run / ".lock-owner").read_text())
    assert found
    return int(found[1])


def ancestors(pid: int) -> list[int]:
    """Return the processes that have started this one, and so on."""
    found = []
    while pid > 1:
        pid = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
        found.append(pid)
    return found


def test_jobs_save_on_ctrl_c_and_lost_ones_fail_and_are_resumed(
    tmp_path: Path, start: Start, command: Command, ray_cluster: RayCluster
) -> None:
    sweep, ray = tmp_path / "s", ["hydra/launcher=ray", f"hydra.launcher.address={ray_cluster.address}"]
    run = start("-m", *WORDS, *ray, "epochs=20", "seed=0,1", "hydra.sweep.dir=s")
    for number in "01":
        wait_for_step(sweep / number, 6)
    run.send(signal.SIGINT)
    assert run.end() == 130
    assert run.errors.endswith(f"Interrupted. Continue with: cifar resume s {MODEL} {ray[1]}\n"), run.text
    assert [read_summary(sweep / number)["status"] for number in "01"] == ["interrupted"] * 2
    assert [read_summary(sweep / number)["steps"] for number in "01"] == [step(sweep / number) for number in "01"]

    cut_at = [step(sweep / number) for number in "01"]
    again = start("s", MODEL, ray[1], program=RESUME)
    for number in "01":
        wait_for_step(sweep / number, cut_at[int(number)] + 6)
    pids = {number: process(sweep / number) for number in "01"}
    on_second = [number for number in "01" if ray_cluster.second.pid in ancestors(pids[number])]
    assert len(on_second) == 1
    (other,) = {"0", "1"} - {*on_second}
    kill_tree(ray_cluster.second.pid)
    again.wait_for(rf"Job {on_second[0]}: its process or its node is lost")
    os.kill(pids[other], signal.SIGKILL)
    assert again.end() == 1
    assert re.search(
        rf"Job {other}: its process or its node is lost \(\w+\)\. What it had saved is there\.", again.text
    )
    assert "Traceback" not in again.text
    assert not all(step(sweep / number) == 120 for number in "01")

    done = command("s", MODEL, ray[1], program=RESUME)
    assert done.returncode == 0, done.stderr
    assert "All 2 jobs of s are done" in done.stdout
    assert_as_left_alone(sweep, "01", command, "epochs=20", "seed=0,1")


def test_jobs_that_ask_for_a_gpu_run_where_one_is_on_the_cluster_that_is_found(
    tmp_path: Path, start: Start, ray_cluster: RayCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", ray_cluster.address)  # what address=auto, the default, takes first
    sweep, words = tmp_path / "s", [*WORDS, "hydra/launcher=ray", "seed=0,1", "epochs=3"]
    run = start("-m", *words, "hydra.launcher.num_gpus=1", "hydra.sweep.dir=s")
    for number in "01":
        wait_for_step(sweep / number, 1)
        assert ray_cluster.second.pid in ancestors(process(sweep / number))
    assert run.end() == 0, run.text
    assert "No node of the cluster" not in run.text
    in_vain = start("-m", *words, "hydra.launcher.num_gpus=2", "hydra.sweep.dir=t")
    in_vain.wait_for("No node of the cluster has what hydra.launcher asks for each job: 1 cores, 2 GPUs, 0 GB")
    in_vain.send(signal.SIGINT)
    assert in_vain.end() == 130, in_vain.text


def test_where_no_cluster_answers_one_message_says_so(tmp_path: Path, command: Command) -> None:
    pytest.importorskip("ray")
    words = ["seed=0,1", "hydra/launcher=ray", "hydra.launcher.address=127.0.0.1:9"]
    refused = command("-m", *WORDS, *words, "hydra.sweep.dir=s")
    assert refused.returncode == 1
    where = "hydra.launcher.address=127.0.0.1:9: no Ray cluster answers there. Start one with ray start --head"
    assert refused.stderr.startswith(where)
    assert len(refused.stderr.splitlines()) == 1
    wrong = command("-m", *WORDS, "seed=0,1", "hydra/launcher=ray", "hydra.launcher.num_cpus=0", "hydra.sweep.dir=t")
    assert wrong.stderr == "hydra.launcher.num_cpus=0 is not possible: it takes a positive number of cores.\n"
