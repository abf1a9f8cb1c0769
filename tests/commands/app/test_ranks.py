"""torchrun for real: one run in several processes, signals, lost processes, restarts, and resuming on other numbers."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.conftest import QUIET, ROOT, SLOW, read_metrics, read_summary

MODEL = "model._target_=tests.training.ranks.Net"
NET = [
    MODEL, "data=digits", "data.limit=204", "data.val_size=50", "augment=crop_flip", "optimizer=sgd", "lr=0.05",
    "tracker=none", "batch_size=20", "device=cpu", "device.threads=1", "epochs=3", "log_every=1",
]  # fmt: skip
NOISE = [*QUIET, *SLOW, "data.val_size=20", "epochs=4"]


class Torchrun:
    """A torchrun with its processes, in a session of its own."""

    def __init__(
        self, cwd: Path, count: int, *words: str, options: tuple[str, ...] = (), program: str = "run",
        entry: tuple[str, ...] = ("-m", "cifar"),
    ) -> None:  # fmt: skip
        self.path = cwd / f"{len([*cwd.glob('*.log')])}.log"
        command = [sys.executable, "-m", "torch.distributed.run", f"--nproc-per-node={count}", *options]
        environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
        with self.path.open("w") as file:
            self.process = subprocess.Popen(
                [*command, *entry, program, *words], cwd=cwd, env=environment, stdout=file,
                stderr=subprocess.STDOUT, start_new_session=True,
            )  # fmt: skip

    @property
    def text(self) -> str:
        """All that was printed."""
        return self.path.read_text()

    def wait_for(self, pattern: str, seconds: float = 120) -> None:
        """Wait until it prints something."""
        deadline = time.monotonic() + seconds
        while not re.search(pattern, self.text):
            assert self.process.poll() is None, self.text
            assert time.monotonic() < deadline, self.text
            time.sleep(0.05)

    def ranks(self) -> list[int]:
        """Return the processes that make the run, in the order of their ranks."""
        path = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        found: dict[int, int] = {}
        for pid in map(int, path.read_text().split()):
            variables = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
            found |= {int(entry[5:]): pid for entry in variables if entry.startswith(b"RANK=")}
        return [found[rank] for rank in sorted(found)]

    def end(self, seconds: float = 120) -> int:
        """Wait for the end of torchrun and return its exit code."""
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            raise AssertionError(f"it did not end:\n{self.text}") from None


def weights(folder: Path) -> dict[str, torch.Tensor]:
    """Return the weights and buffers of a run's last checkpoint."""
    content = torch.load(folder / "checkpoint.pt", weights_only=True)
    return dict(content["model"])


def assert_equal(first: Path, second: Path, tolerance: float) -> None:
    """Compare the results of two runs."""
    torch.testing.assert_close(weights(first), weights(second), rtol=tolerance, atol=tolerance)
    one, other = (np.load(folder / "predictions.npz") for folder in (first, second))
    np.testing.assert_allclose(one["loss"], other["loss"], rtol=max(tolerance, 1e-6))
    for key in ("train/loss", "train/accuracy", "val/loss", "test/loss"):
        values, others = ([row[key] for row in read_metrics(folder) if key in row] for folder in (first, second))
        np.testing.assert_allclose(values, others, rtol=max(tolerance, 1e-6))


@pytest.fixture(name="whole", scope="module")
def _whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a run of two processes with common statistics that nothing disturbed."""
    folder = tmp_path_factory.mktemp("whole")
    run = Torchrun(folder, 2, *NET, "device.sync_batch_norm=true", "hydra.run.dir=run")
    assert run.end() == 0, run.text
    assert run.text.count("Results: run") == 1
    assert ", 2 processes; 204 training, 50 validation" in run.text
    assert sorted(path.name for path in folder.iterdir()) == ["0.log", "run"]
    return folder / "run"


def test_two_processes_equal_one(whole: Path, tmp_path: Path) -> None:
    one = subprocess.run(
        [sys.executable, "-m", "cifar", "run", *NET, "hydra.run.dir=one"], cwd=tmp_path, capture_output=True, text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}, timeout=120,
    )  # fmt: skip
    assert one.returncode == 0, one
    assert_equal(whole, tmp_path / "one", 1e-3)  # float32, whose rounding 33 steps have magnified
    assert read_summary(whole)["steps"] == read_summary(tmp_path / "one")["steps"] == 33


@pytest.mark.slow
@pytest.mark.parametrize(
    ("first", "victim", "signum", "count"),
    [(2, 0, signal.SIGTERM, 2), (2, 1, signal.SIGTERM, 3), (2, -1, signal.SIGTERM, 1), (2, -1, signal.SIGINT, 2),
     (1, 0, signal.SIGTERM, 2)],
)  # fmt: skip
def test_a_signal_to_any_of_them_is_one_save_and_any_number_goes_on(
    whole: Path, tmp_path: Path, first: int, victim: int, signum: signal.Signals, count: int
) -> None:
    run = Torchrun(tmp_path, first, *NET, "device.sync_batch_norm=true", "hydra.run.dir=run")
    run.wait_for(r"Epoch \[2/3\], Step \[3/")
    if victim < 0:  # as Ctrl-C in a terminal does it
        os.killpg(run.process.pid, signum)
    else:
        os.kill(run.ranks()[victim], signum)
    assert run.end(60) == 1, run.text
    assert victim < 0 or re.search(rf"exitcode *: {128 + signum} ", run.text), run.text
    assert run.text.count("Interrupted. Continue with: cifar resume run") == 1
    assert read_summary(tmp_path / "run")["status"] == "interrupted"
    again = Torchrun(tmp_path, count, "run", MODEL, program="resume")
    assert again.end() == 0, again.text
    assert "Resumed at step" in again.text
    assert read_summary(tmp_path / "run")["times_resumed"] == 1
    assert_equal(whole, tmp_path / "run", 0 if first == count == 2 else 1e-3)


@pytest.mark.slow
def test_one_that_is_silent_is_an_error_for_the_others(tmp_path: Path) -> None:
    (tmp_path / "hasty.py").write_text(
        "from cifar.commands.main import main\nfrom cifar.training import distributed\n"
        "distributed.TIMEOUT_SECONDS = 8.0\nmain()\n"
    )
    run = Torchrun(tmp_path, 2, *NOISE, "hydra.run.dir=run", entry=("hasty.py",))
    run.wait_for(r"Step \[2/6\]")
    os.kill(run.ranks()[1], signal.SIGSTOP)
    assert run.end(90) == 1
    assert run.text.count("Another process of this run has ended, or was silent for 8 s") == 1, run.text


@pytest.mark.slow
@pytest.mark.parametrize("victim", [0, 1])
def test_one_that_is_killed_ends_all(tmp_path: Path, victim: int) -> None:
    run = Torchrun(tmp_path, 3, *NOISE, "hydra.run.dir=run")
    run.wait_for(r"Step \[2/6\]")
    ranks = run.ranks()
    os.kill(ranks[victim], signal.SIGKILL)
    assert run.end(30) != 0
    assert run.text.count("Another process of this run has ended") == 1
    assert not any(Path(f"/proc/{rank}").exists() for rank in ranks)
    assert "Traceback" not in run.text.partition("torch/distributed/elastic")[0]


@pytest.mark.slow
def test_torchrun_starts_again_what_was_killed_and_it_ends_as_if_it_had_not_been(whole: Path, tmp_path: Path) -> None:
    words = [*NET, "device.sync_batch_norm=true", "hydra.run.dir=run", "resume=auto"]
    run = Torchrun(tmp_path, 2, *words, options=("--max-restarts=2",))
    run.wait_for(r"Epoch \[2/3\], Step \[3/")
    os.kill(run.ranks()[1], signal.SIGKILL)
    assert run.end(240) == 0, run.text
    assert read_summary(tmp_path / "run")["times_resumed"] == 1
    assert_equal(whole, tmp_path / "run", 0)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("program", "words", "message"),
    [
        ("run", ["-m", "lr=0.1,0.2"], "A sweep is not possible under torchrun"),
        ("tune", ["lr=0.1,0.2"], "A search is not possible under torchrun"),
        ("run", ["batch_size=1"], "batch_size=1 is less than one image for each of the 2 processes."),
        ("run", ["lr=-1"], "lr=-1.0 is not possible: it takes a positive number"),
    ],
)
def test_what_is_not_possible_is_said_once(tmp_path: Path, program: str, words: list[str], message: str) -> None:
    run = Torchrun(tmp_path, 2, *NOISE, *words, "hydra.run.dir=run", program=program)
    assert run.end(60) != 0
    assert run.text.count(message) == 1, run.text
    assert "Traceback" not in run.text.partition("torch/distributed/elastic")[0]


@pytest.mark.slow
def test_a_compiled_model_works_in_several_processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = tmp_path / "code"
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(code))
    for name, compiled in {"plain": "false", "compiled": "true"}.items():
        words = [*NET, "epochs=1", "device.sync_batch_norm=true", f"device.compile={compiled}"]
        run = Torchrun(tmp_path, 2, *words, f"hydra.run.dir={name}")
        assert run.end(400) == 0, run.text
        assert (code / "fxgraph").exists() == (name == "compiled")
    assert_equal(tmp_path / "plain", tmp_path / "compiled", 1e-3)
