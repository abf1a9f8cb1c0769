"""Sweeps on a real SLURM: jobs that are cut in every way go on by themselves and end as those that were left alone."""

import contextlib
import json
import os
import platform
import re
import signal
import subprocess
from pathlib import Path

import pytest

from cifar.base.run_folder import read_summary
from tests.conftest import Command, Start
from tests.sweeps.launchers.cut_runs import MODEL, WORDS, assert_as_left_alone, step, wait_for_step, wait_until

pytestmark = pytest.mark.cluster
CIFAR = ("-m", "cifar")
SMALL = ["hydra/launcher=slurm", "hydra.launcher.cpus_per_task=1", "hydra.launcher.mem_gb=1"]


def ask(*command: str) -> str:
    """Return what a command of SLURM's says."""
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def ids(sweep: Path) -> dict[str, str]:
    """Return the ids of the sweep's jobs by their numbers."""
    jobs: dict[str, str] = json.loads((sweep / "slurm.json").read_text())["jobs"]
    return jobs


def texts(sweep: Path, job_id: str) -> str:
    """Return all that the job has printed."""
    return "".join(path.read_text() for path in sorted((sweep / ".submitit" / job_id).glob("*_log.*")))


def processes(job_id: str) -> list[int]:
    """Return the processes of the job that run Python, the batch script's own ones left out."""
    listed = ask("scontrol", "listpids", ask("squeue", "-h", f"--job={job_id}", "-o%A").strip())
    pids = [int(line.split()[0]) for line in listed.splitlines()[1:] if line.split()[0].isdecimal()]
    found = []
    for pid in pids:
        with contextlib.suppress(OSError):
            if b"submitit.core._submit" in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"srun")[-1]:
                found.append(pid)
    return [pid for pid in found if not Path(f"/proc/{pid}/cmdline").read_bytes().startswith((b"srun", b"/bin/bash"))]


def test_jobs_go_on_without_the_terminal_and_when_they_are_cut(
    tmp_path: Path, start: Start, command: Command, slurm: Path
) -> None:
    sweep, again = tmp_path / "s", ("-m", "cifar", "resume")
    run = start("-m", *WORDS, *SMALL, "epochs=40", "seed=0,1", "hydra.sweep.dir=s")
    run.wait_for(r"Submitted 2 jobs as SLURM's (\d+); their output goes to s/.submitit")
    for number in "01":
        wait_for_step(sweep / number, 6)
    run.send(signal.SIGINT)
    assert run.end() == 130
    (array,) = {text.partition("_")[0] for text in ids(sweep).values()}
    assert run.errors.endswith(
        "Interrupted. The jobs go on without this terminal. How far they are: cifar report s, "
        f"squeue --jobs={array}. Wait for them: cifar resume s {MODEL}. Stop them: scancel {array}\n"
    )
    assert "sacct" not in run.text
    assert set(ask("squeue", "-h", "-r", "-o%T").split()) == {"RUNNING"}

    subprocess.run(["scontrol", "requeue", ids(sweep)["0"]], check=True)
    subprocess.run(["scancel", "--signal=USR2", ids(sweep)["1"]], check=True)
    waiting = start("s", MODEL, program=again)
    waiting.wait_for(rf"2 of them are queued or running already, as SLURM's {array}")
    report = command("s", program=("-m", "cifar", "report"))
    assert re.search(r"^s: 2 jobs: .*(queued|running)", report.stdout, re.MULTILINE), report
    assert waiting.end() == 0, waiting.text
    assert "Submitted" not in waiting.text
    assert "All 2 jobs of s are done" in waiting.output
    assert [read_summary(sweep / number)["times_resumed"] for number in "01"] == [1, 1]
    assert "Job 1 is saved, and SLURM starts it again." in texts(sweep, ids(sweep)["1"])
    assert "Traceback" not in texts(sweep, ids(sweep)["0"]) + texts(sweep, ids(sweep)["1"])
    assert_as_left_alone(sweep, "01", command, "epochs=40", "seed=0,1")


def test_who_submits_and_leaves_finds_the_report_and_resumes_what_is_missing(
    tmp_path: Path, command: Command, slurm: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    sweep, words = tmp_path / "s", [word for word in WORDS if not word.startswith("device.threads")]
    left = command(
        "-m", *words, *SMALL, "hydra.launcher.cpus_per_task=2", "hydra.launcher.wait=false", "+model.dropout=0.1,-1",
        "model._target_=tests.tiny_model.tiny", "~model.seconds", "~model.build_seconds", "hydra.sweep.dir=s",
    )  # fmt: skip
    assert left.returncode == 0, left.stderr
    assert "Nobody waits for them. How far they are: cifar report s, squeue --jobs=" in left.stdout
    wait_until(lambda: (sweep / "report.md").exists(), "the last job's report")
    assert ", 2 threads, fp32)" in texts(sweep, ids(sweep)["0"])
    assert read_summary(sweep / "1")["status"] == "failed"
    wait_until(lambda: not ask("squeue", "-h"), "the end")
    report = command("s", program=("-m", "cifar", "report"))
    assert report.stdout.endswith("s: 2 jobs: 1 completed, 1 failed\n")
    words = ["model._target_=tests.tiny_model.tiny", "hydra.launcher.wait=true"]
    resumed = command("s", *words, program=("-m", "cifar", "resume"))
    assert resumed.returncode == 1
    assert "Submitted 1 job as" in resumed.stdout
    assert "s/0 is done already" in resumed.stdout
    assert "Job 1 failed" in resumed.stderr


@pytest.mark.slow
def test_a_killed_process_a_preempted_job_and_a_node_that_dies(
    tmp_path: Path, start: Start, command: Command, slurm: Path
) -> None:
    sweep = tmp_path / "s"
    words = [*WORDS, "epochs=300", "seed=0,1"]
    assert command("-m", *words, *SMALL, "hydra.launcher.wait=false", "hydra.sweep.dir=s").returncode == 0
    for number in "01":
        wait_for_step(sweep / number, 6)

    (pid,) = processes(ids(sweep)["0"])
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: "(BeginTime)" in ask("squeue", "-h", "-r", "-o%r(%r)"), "requeued after kill -9")
    wait_for_step(sweep / "0", step(sweep / "0") + 6)

    cut_at = step(sweep / "1")
    urgent = ["sbatch", "--partition=urgent", "--cpus-per-task=2", "--output=/dev/null", "--wrap=sleep 3"]
    subprocess.run(urgent, check=True, cwd=tmp_path)
    wait_until(lambda: set(ask("squeue", "-h", "-r", "-p", "main", "-o%T").split()) == {"PENDING"}, "preempted")
    assert step(sweep / "1") > cut_at
    for number in "01":
        wait_for_step(sweep / number, step(sweep / number) + 6)

    kill_node(slurm, [pid for number in "01" for pid in processes(ids(sweep)[number])])
    wait_until(lambda: "down" in ask("sinfo", "-h", "-o%t"), "the node is down")
    assert all((sweep / number / ".lock-owner").exists() for number in "01")  # they had no time for anything
    owner = sweep / "0" / ".lock-owner"  # as if job 0 had been on a node of which nothing is known
    owner.write_text(owner.read_text().replace(f" on {platform.node()}", " on another-node"))
    subprocess.run(["slurmd"], check=True)
    wait_until(lambda: "idle" in ask("sinfo", "-h", "-o%t") or "R" in ask("squeue", "-h", "-o%t"), "the node is up")
    wait_until(lambda: not ask("squeue", "-h"), "the end", seconds=500)
    assert min(read_summary(sweep / number)["times_resumed"] for number in "01") >= 2
    assert re.search(r"was in use by process \d+ on another-node .*: taken over", texts(sweep, ids(sweep)["0"]))
    assert_as_left_alone(sweep, "01", command, "epochs=300", "seed=0,1")


@pytest.mark.slow
def test_a_job_saves_before_its_time_limit_and_goes_on_and_one_without_a_step_by_then_ends(
    tmp_path: Path, start: Start, command: Command, slurm: Path
) -> None:
    sweep = tmp_path / "s"
    limit = ["hydra.launcher.timeout_min=1", "hydra.launcher.signal_delay_s=10"]  # a minute is SLURM's least
    words = [word for word in WORDS if "build_seconds" not in word]
    run = start("-m", *words, *SMALL, *limit, "epochs=200", "+model.build_seconds=0,300", "hydra.sweep.dir=s")
    assert run.end(500) == 1
    assert "1 job has no result." in run.text
    text, times_resumed = texts(sweep, ids(sweep)["0"]), read_summary(sweep / "0")["times_resumed"]
    assert times_resumed >= 1
    assert text.count("Job 0 is saved, and SLURM starts it again.") == times_resumed
    assert "DUE TO TIME LIMIT" not in text  # SLURM's word when it kills a job
    assert_as_left_alone(sweep, "0", command, "epochs=200")

    text = texts(sweep, ids(sweep)["1"])
    assert text.count("Job 1 came to no step before its time limit, so it is not started again") == 1
    assert "DUE TO TIME LIMIT" not in text
    assert read_summary(sweep / "1").get("status") != "completed"


def kill_node(slurm: Path, pids: list[int]) -> None:
    """Let the node die: its daemon, the jobs' keepers and the jobs, without a word to anybody."""
    keepers = set()
    for pid in pids:
        while pid > 1:
            keepers.add(pid)
            pid = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
            if not re.match(rb"slurmstepd|srun|/bin/bash", Path(f"/proc/{pid}/cmdline").read_bytes()):
                break
    daemon = int((slurm / "slurmd.pid").read_text())
    for pid in (daemon, *sorted(keepers)):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
