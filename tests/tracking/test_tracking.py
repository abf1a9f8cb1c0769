"""metrics.jsonl, and the guard around a dashboard that fails."""

import math
import signal
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from cifar.base.signals import Interrupted
from cifar.tracking.predictions import Predictions
from cifar.tracking.tracking import Guard, MetricsFile, NoTracker, RunInfo
from tests.conftest import read_metrics

ONE = torch.zeros(1)
PREDICTIONS = Predictions(torch.zeros((1, 3, 2, 2)), ONE, ONE, ONE, ONE, ONE, ["a"])
INFO = RunInfo("2026-11-23/04-12-00", None, {"lr": 0.1, "data": {"limit": None}})


def test_metrics_file_is_one_strict_json_object_a_line(tmp_path: Path) -> None:
    first = MetricsFile(tmp_path / "metrics.jsonl")
    first.log({"train/loss": 0.5}, step=10, epoch=1)
    first.log({"train/loss": math.nan, "val/loss": math.inf}, step=20, epoch=1)
    MetricsFile(tmp_path / "metrics.jsonl", first.state()).log({"test/accuracy": 0.1}, step=20, epoch=1)
    lines = read_metrics(tmp_path)
    assert [line["step"] for line in lines] == [10, 20, 20]
    assert (lines[0]["train/loss"], lines[1]["train/loss"], lines[1]["val/loss"]) == (0.5, None, None)
    assert [*lines[2]] == ["step", "epoch", "time_seconds", "test/accuracy"]
    assert 0 <= lines[0]["time_seconds"] <= lines[1]["time_seconds"] < 5


class Failing(NoTracker):
    """A tracker whose methods named in `failing` raise."""

    def __init__(self, failing: str) -> None:
        super().__init__(INFO)
        self.failing, self.calls = failing, list[str]()

    def _call(self, name: str) -> None:
        self.calls.append(name)
        if name == self.failing:
            raise OSError("the disk\nis gone")

    def __enter__(self) -> "Failing":
        self._call("enter")
        return self

    def __exit__(self, *_: object) -> None:
        self._call("exit")

    def log(self, metrics: dict[str, float], step: int) -> None:
        self._call("log")

    def log_predictions(self, test: Predictions) -> None:
        self._call("predictions")

    def summarise(self, summary: dict[str, Any]) -> None:
        self._call("summarise")

    def log_report(self, folder: Path) -> None:
        self._call("report")


@pytest.mark.parametrize("failing", ["enter", "log", "predictions", "summarise", "report", "exit", "nothing"])
def test_a_failing_tracker_is_warned_of_once_and_left_alone(failing: str, caplog: pytest.LogCaptureFixture) -> None:
    tracker = Failing(failing)
    with Guard(tracker) as guard:
        for _ in range(2):
            guard.log({}, 1)
        guard.log_predictions(PREDICTIONS)
        guard.summarise({})
        guard.log_report(Path())
    order = ["enter", "log", "log", "predictions", "summarise", "report", "exit"]
    assert tracker.calls == (order if failing == "nothing" else order[: order.index(failing) + 1])
    expected = "The dashboard failed and gets nothing more from this run; metrics.jsonl does. "
    assert caplog.messages == ([] if failing == "nothing" else [expected + "It said: OSError: the disk is gone"])


def test_a_tracker_that_does_not_close_after_ctrl_c_is_left_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cifar.tracking.tracking.CLOSING_SECONDS", 0.1)
    leave = threading.Event()

    class Stuck(NoTracker):
        def __exit__(self, *_: object) -> None:
            leave.wait(20)

    start = time.perf_counter()
    with pytest.raises(Interrupted) as error, Guard(Stuck(INFO)):
        raise Interrupted(signal.SIGINT)
    assert time.perf_counter() - start < 5
    assert error.value.is_hasty
    leave.set()
    with pytest.raises(Interrupted) as error, Guard(NoTracker(INFO)):
        raise Interrupted(signal.SIGINT)
    assert not error.value.is_hasty
