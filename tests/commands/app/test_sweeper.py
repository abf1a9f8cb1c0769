"""Sweeps as a user meets them: planned once, found again by what they are, refused before anything is begun."""

import json
import multiprocessing
import os
import re
import shlex
import signal
import time
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, open_dict

from cifar.base import signals
from cifar.base.locks import is_locked
from cifar.base.shares import num_cores
from cifar.commands.app import jobs, sweeper
from cifar.sweeps.plan import PLAN, checksum, read_plan
from tests.conftest import QUIET, ROOT, SLOW, Command, Start, read_metrics, read_summary
from tests.experiment.test_restore import cut_after

RESUME = ("-m", "cifar", "resume")
ONE_EPOCH = [*QUIET, "log_every=8"]


@pytest.fixture(autouse=True)
def _forget_signals(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(signals, "_received", None)


def test_a_shuffled_sweep_keeps_its_order_and_an_edited_one_its_runs(tmp_path: Path, command: Command) -> None:
    begun = command("-m", *ONE_EPOCH, "lr=shuffle(0.1,0.2)", "hydra.sweep.dir=s")
    assert begun.returncode == 0, begun.stderr
    assert begun.stdout.startswith("2 jobs over lr in s\n")
    rates = [read_summary(tmp_path / "s" / number)["config"]["lr"] for number in "01"]
    assert re.findall(r"Job (\d) starts: lr=(.*)", begun.stdout) == [("0", str(rates[0])), ("1", str(rates[1]))]
    before = [(tmp_path / "s" / number / "metrics.jsonl").stat() for number in "01"]

    again = command("s", QUIET[0], program=RESUME)
    assert again.returncode == 0, again.stderr
    assert again.stdout.count("is done already") == 2
    assert again.stdout.count("2 of 2 jobs done") == 1

    edited = command("-m", *ONE_EPOCH, "lr=0.05,0.1,0.2", "log_every=4", "resume=auto", "hydra.sweep.dir=s")
    assert edited.returncode == 0, edited.stderr
    assert edited.stdout.count("is done already") == 2
    assert "Job 2 starts: lr=0.05" in edited.stdout
    assert read_summary(tmp_path / "s" / "2")["config"]["lr"] == 0.05
    assert read_summary(tmp_path / "s" / "2")["job"] == 2
    assert [(tmp_path / "s" / number / "metrics.jsonl").stat() for number in "01"] == before
    assert not [*(tmp_path / "s").glob("*/replaced-*")]
    plan = read_plan(tmp_path / "s")
    assert plan is not None
    for number in range(3):
        assert plan.label(number) == f"lr={read_summary(tmp_path / 's' / str(number))['config']['lr']}"


def test_a_sweep_with_a_configuration_of_its_own_never_goes_on_with_another(tmp_path: Path, command: Command) -> None:
    assert command(*ONE_EPOCH, "hydra.run.dir=old").returncode == 0
    flags = ["--config-path", str(tmp_path / "old" / ".hydra")]
    assert command(*flags, "-m", "seed=0,1", "hydra.sweep.dir=s").returncode == 0
    refused = command("s", program=RESUME)
    assert refused.returncode == 1
    assert refused.stderr.endswith(f"continue it with: cifar resume s {shlex.join(flags)}\n")
    assert not [*(tmp_path / "s").glob("*/replaced-*")]
    done = command("s", *flags, program=RESUME)
    assert (done.returncode, done.stdout.count("is done already")) == (0, 2), done.stderr

    config = tmp_path / "old" / ".hydra" / "config.yaml"
    config.write_text(config.read_text().replace("epochs: 1\n", "epochs: 2\n"))
    refused = command("s", *flags, program=RESUME)
    assert refused.returncode == 1
    assert "The configuration files are not what they were when s was begun: epochs was 1 and is 2." in refused.stderr
    assert not [*(tmp_path / "s").glob("*/replaced-*")]


def test_a_strangers_sweep_calls_nothing(tmp_path: Path, command: Command) -> None:
    assert command("-m", *ONE_EPOCH, "seed=0,1", "hydra.sweep.dir=s").returncode == 0
    whole = (tmp_path / "s" / PLAN).read_text()
    call = ["_target_=subprocess.check_call", "args=[touch,PWNED]"]
    for place, words in (
        ("hydra", [f"+hydra.callbacks.x.{word}" for word in call]),
        ("task", [f"+augment.{word}" if word.startswith("args") else f"augment.{word}" for word in call]),
    ):
        content = json.loads(whole)
        content.pop("sha256")
        content["begun"][place] += words
        (tmp_path / "s" / PLAN).write_text(json.dumps(content | {"sha256": checksum(content)}))
        refused = command("s", QUIET[0], program=RESUME)
        assert refused.returncode == 1
        assert words[0] in refused.stderr
        assert "Nothing was called" in refused.stderr
        assert len(refused.stderr.splitlines()) == 1
    multirun_yaml = tmp_path / "s" / "multirun.yaml"
    (tmp_path / "s" / PLAN).write_text(whole)
    multirun_yaml.write_text(multirun_yaml.read_text().replace("    - seed=0,1", "    - seed=0,1\n    - +evil=1"))
    assert command("s", QUIET[0], program=RESUME).returncode == 0
    assert not (tmp_path / "PWNED").exists()


def test_a_sweep_whose_jobs_could_not_begin_is_refused_before_the_first(tmp_path: Path, command: Command) -> None:
    words = ["experiment=lr_question", "model=resnet50", "data=digits", "augment=none", "tracker=none"]
    result = command("-m", *words, "hydra.sweep.dir=s")
    assert result.returncode == 1
    assert result.stderr == "init_from=outputs/plateau/resnet50/checkpoint.pt: there is no such file.\n"
    assert result.stdout == "36 jobs over lr, schedule, seed in s\n"
    assert not [*(tmp_path / "s").glob("[0-9]*")]
    assert not (tmp_path / "s" / "report.md").exists()


def test_a_job_that_its_launcher_starts_again_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As SLURM does when it requeues a job: the same call once more, in the same folder."""
    monkeypatch.chdir(tmp_path)
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        cfg = compose("config", [*QUIET, "log_every=1", "hydra.mode=MULTIRUN", "hydra.sweep.dir=s"], True)
    with open_dict(cfg):
        cfg.hydra.job.num, cfg.hydra.job.id, cfg.hydra.runtime.output_dir = 0, "0", str(tmp_path / "s" / "0")
    monkeypatch.setattr(HydraConfig.instance(), "cfg", None)
    HydraConfig.instance().set_config(cfg)
    task = cfg.copy()
    with open_dict(task):
        del task["hydra"]
    with monkeypatch.context() as patch:
        cut_after(patch, 5)
        with pytest.raises(signals.Interrupted):
            jobs.job(task.copy())
    assert read_summary(tmp_path / "s" / "0")["status"] == "interrupted"
    monkeypatch.setattr(signals, "_received", None)
    result = jobs.job(task.copy())
    summary = read_summary(tmp_path / "s" / "0")
    assert (summary["status"], summary["times_resumed"], result) == ("completed", 1, summary["test_accuracy"])
    assert [line["step"] for line in read_metrics(tmp_path / "s" / "0") if "lr" in line] == [*range(1, 9)]
    assert jobs.job(task.copy()) == result


def test_workers_end_with_the_process_that_started_them_and_a_resumed_sweep_waits(tmp_path: Path, start: Start) -> None:
    words = [*QUIET, *SLOW, "epochs=30", "seed=0,1", "hydra/launcher=joblib", "hydra.launcher.n_jobs=2"]
    run = start("-m", *words, "hydra.sweep.dir=side", "checkpoint.every_epochs=null")
    for number in "01":
        run.wait_for(rf"Job {number}: Epoch \[1/30\], Step \[2/8\]")
        run.seen = 0
    assert "Joblib.Parallel" not in run.text
    assert not re.search(r"^Epoch", run.text, re.MULTILINE)  # every line once, with its job
    run.send(signal.SIGKILL)
    again = start("side", SLOW[0], "log_every=8", program=RESUME)
    deadline = time.monotonic() + 30
    while any(is_locked(tmp_path / "side" / number) for number in "01") and time.monotonic() < deadline:
        time.sleep(0.1)
    again.wait_for(r"Resumed at step \d+ of 240")
    for number in "01":
        text = (tmp_path / "side" / number / "summary.json").read_text()
        assert json.loads(text)["steps"] < 240
    assert "failed" not in again.text
    again.send(signal.SIGTERM)
    again.end()


def test_each_worker_has_a_gpu_and_a_share_of_the_cores_of_its_own(tmp_path: Path, start: Start) -> None:
    words = ["seed=0,1,2,3", "hydra/launcher=joblib", "hydra.launcher.n_jobs=2", "+model.folder=${oc.env:NOTES}"]
    model = ["model._target_=tests.tiny_model.noting", *QUIET[1:]]
    run = start("-m", *model, *words, NOTES=str(tmp_path / "notes"), CUDA_VISIBLE_DEVICES="5,7", OMP_NUM_THREADS="")
    assert run.end() == 0, run.text
    notes = [path.read_text().splitlines() for path in (tmp_path / "notes").iterdir()]
    assert sum(map(len, notes)) == 4
    threads = max(1, num_cores() // 2)
    assert sorted(line for lines in notes for line in {*lines}) == [f"5 {threads}", f"7 {threads}"]


def test_a_folder_in_use_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    states = iter([True, True, True, False, False])
    waits: list[float] = []
    monkeypatch.setattr(jobs, "is_locked", lambda folder: next(states))
    monkeypatch.setattr(jobs, "sleep", waits.append)
    with jobs.locked_in_time(tmp_path):
        assert is_locked(tmp_path)
    assert waits == [jobs.LOOK_SECONDS] * 2


def test_of_two_jobs_that_end_in_the_same_moment_one_makes_the_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tracker = DictConfig({})

    def report_on(folder: Path, tracker: DictConfig) -> None:
        (tmp_path / f"report.{os.getpid()}").touch()
        if len([*tmp_path.glob("report.*")]) > 1:
            return
        other = multiprocessing.get_context("fork").Process(target=sweeper.report_if_left_alone, args=(folder, tracker))
        other.start()
        other.join(60)
        assert other.exitcode == 0

    monkeypatch.setattr(sweeper, "report_on", report_on)
    (folder := tmp_path / "s").mkdir()
    sweeper.report_if_left_alone(folder, tracker)
    assert [path.name for path in tmp_path.glob("report.*")] == [f"report.{os.getpid()}"]
