"""What the tests of launchers share: a slow run of a few steps an epoch, and its comparison with one left alone."""

import contextlib
import re
import time
from collections.abc import Callable
from pathlib import Path

from cifar.base.errors import UserError
from cifar.base.sealed import read_checkpoint
from tests.conftest import QUIET, SLOW, Command
from tests.experiment.test_restore import assert_identical, results

WORDS = [*QUIET, *SLOW, "+model.build_seconds=0", "data.val_size=20", "checkpoint.every_epochs=1"]  # six steps an epoch
MODEL = SLOW[0]


def wait_until(is_true: Callable[[], object], what: str, seconds: float = 180) -> None:
    """Wait until a condition holds."""
    deadline = time.monotonic() + seconds
    while not is_true():
        assert time.monotonic() < deadline, f"waited for nothing: {what}"
        time.sleep(0.2)


def step(run: Path) -> int:
    """Return the step of the run's last checkpoint, 0 without one."""
    with contextlib.suppress(UserError, OSError):
        return int(read_checkpoint(run / "checkpoint.pt")["counters"]["step"])
    return 0


def wait_for_step(run: Path, number: int) -> None:
    """Wait until the run has a checkpoint of this step or a later one."""
    wait_until(lambda: step(run) >= number, f"step {number} of {run}")


def assert_as_left_alone(sweep: Path, numbers: str, command: Command, *words: str) -> None:
    """Compare the sweep's runs with those of the same jobs in one process, which are not slowed down."""
    model = ["model._target_=tests.tiny_model.Slow", "+model.seconds=0.0", "device.threads=1", "log_every=1"]
    plain = [
        word for word in WORDS if not re.match(r"model\._target_|\+model\.seconds|device\.threads|log_every", word)
    ]
    done = command("-m", *plain, *model, *words, "hydra.sweep.dir=alone")
    assert done.returncode == 0, done.stderr
    for number in numbers:
        one, other = results(sweep / number), results(sweep.with_name("alone") / number)
        del one["summary"]["config_hash"], other["summary"]["config_hash"]  # the pause
        assert one["summary"]["status"] == "completed"
        assert_identical(one, other)
