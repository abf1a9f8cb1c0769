"""What several test modules share: composed configurations, the command line, and the real data."""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig

import cifar.experiment.config  # registers the schema
from cifar.training.devices.device import DEFAULT_THREADS
from tests.processes import ROOT as ROOT
from tests.processes import Run

assert cifar.experiment.config is not None

# A run of a second: eight steps of a tiny model on noise.
TINY = [
    "model._target_=tests.tiny_model.tiny",
    "data=random",
    "data.source.num_train=80",
    "data.source.num_test=30",
    "batch_size=10",
    "eval_batch_size=20",
    "device=cpu",
    "log_every=2",
    "page=false",
]
QUIET = [*TINY, "tracker=none"]
# The choices of model, as messages list them.
MODELS = ", ".join(sorted(path.stem for path in (ROOT / "conf" / "model").glob("*.yaml")))
# … or slower, so that a signal falls in its midst.
SLOW = ["model._target_=tests.tiny_model.Slow", "+model.seconds=0.05", "log_every=1", "device.threads=1"]

Compose = Callable[..., DictConfig]


@pytest.fixture(autouse=True)
def _own_environment(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Keep the user's W&B settings, and what a command in this process has set, out of the tests."""
    os.environ.pop("HYDRA_FULL_ERROR", None)
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("NETRC", os.devnull)
    yield
    torch.set_num_threads(DEFAULT_THREADS)


@pytest.fixture(name="compose")
def _compose() -> Iterator[Compose]:
    """Return a function from overrides to the composed configuration."""
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        yield lambda *overrides: compose("config", overrides=list(overrides))


@dataclass(frozen=True)
class Completed:
    """What a process left."""

    returncode: int
    stdout: str
    stderr: str


Start = Callable[..., Run]
Command = Callable[..., Completed]


@pytest.fixture(name="start")
def _start(tmp_path: Path) -> Iterator[Start]:
    """Return a function that starts run.py in `tmp_path`; what still runs at the end of the test is killed."""
    runs: list[Run] = []

    def start(*arguments: str, program: Sequence[str] = (str(ROOT / "run.py"),), **environment: str) -> Run:
        runs.append(Run(tmp_path, [*program, *arguments], tmp_path.with_name(f"{tmp_path.name}-logs"), **environment))
        return runs[-1]

    yield start
    for run in runs:
        with contextlib.suppress(ProcessLookupError):
            run.send(signal.SIGKILL, to_group=True)
        run.process.join()


@pytest.fixture(name="command")
def _command(start: Start) -> Command:
    """Return a function that calls run.py in `tmp_path` with arguments and returns what came out."""

    def command(*arguments: str, **options: Any) -> Completed:
        run = start(*arguments, **options)
        return Completed(run.end(), run.output, run.errors)

    return command


@pytest.fixture(name="cold_command")
def _cold_command(tmp_path: Path) -> Command:
    """Return a function as `command`, but with an interpreter that starts from nothing."""

    def command(*arguments: str, **environment: str) -> Completed:
        result = subprocess.run(
            [sys.executable, str(ROOT / "run.py"), *arguments],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
            capture_output=True,
            text=True,
            timeout=300,
        )
        return Completed(result.returncode, result.stdout, result.stderr)

    return command


@pytest.fixture(name="cifar10_root", scope="session")
def _cifar10_root() -> str:
    """Return the folder with the real CIFAR-10, or skip the test."""
    root = os.environ.get("CIFAR10_ROOT")
    if not root:
        pytest.skip("CIFAR10_ROOT is not set")
    return str(Path(root).resolve())


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the files that take longest, so that none of them is left alone at the end of `make test`."""
    longest = ["test_real_data.py", "test_tune.py", "test_faults.py"]
    items.sort(key=lambda item: longest.index(item.path.name) if item.path.name in longest else len(longest))


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Say loudly that the tests on real data did not run."""
    if not os.environ.get("CIFAR10_ROOT"):
        terminalreporter.section("REAL-DATA TESTS WERE SKIPPED", sep="!", red=True, bold=True)
        terminalreporter.line("Set CIFAR10_ROOT to a folder that holds cifar-10-batches-py to run them.")


def write_own_parts(folder: Path) -> None:
    """Write the user's own files of docs/extending.md, as they stand there, into a folder."""
    text = (ROOT / "docs" / "extending.md").read_text()
    for name, content in re.findall(r"`([\w/]+\.(?:py|yaml))`:\n\n```\w+\n(.*?)```", text, flags=re.DOTALL):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(content)


def read_metrics(folder: Path) -> list[dict[str, Any]]:
    """Return the objects of a run's metrics.jsonl."""
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def read_summary(folder: Path) -> dict[str, Any]:
    """Return a run's summary.json."""
    summary = json.loads((folder / "summary.json").read_text())
    assert isinstance(summary, dict)
    return summary
