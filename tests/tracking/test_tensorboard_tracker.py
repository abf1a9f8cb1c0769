"""TensorBoard's event files, read back with its own reader and compared with metrics.jsonl."""

import builtins
import math
import signal
from pathlib import Path
from typing import Any

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from cifar.base.errors import UserError
from cifar.tracking.tensorboard_tracker import TensorboardTracker
from cifar.tracking.tracking import RunInfo
from tests.conftest import SLOW, TINY, Command, Start, read_metrics, read_summary

TRACKED = [*TINY, "tracker=tensorboard", "data.val_size=20"]


def read_events(folder: Path) -> EventAccumulator:
    events = EventAccumulator(str(folder), size_guidance={"scalars": 0, "images": 0})
    events.Reload()
    return events


def assert_equals_metrics(run: Path) -> None:
    """Check that every metric of metrics.jsonl is there once, at its step."""
    events = read_events(run / "tensorboard")
    expected: dict[str, list[tuple[int, float]]] = {}
    for line in read_metrics(run):
        for key, value in line.items():
            if key not in ("step", "epoch", "time_seconds"):
                expected.setdefault(key, []).append((line["step"], math.nan if value is None else value))
    for key, points in expected.items():
        assert [(event.step, event.value) for event in events.Scalars(key)] == [
            (step, pytest.approx(value, rel=1e-6, nan_ok=True)) for step, value in points
        ], key


def test_a_run_leaves_scalars_pictures_and_its_settings(tmp_path: Path, command: Command) -> None:
    result = command(*TRACKED, "epochs=2", "hydra.run.dir=run")
    assert result.returncode == 0, result.stderr
    assert_equals_metrics(tmp_path / "run")
    events = read_events(tmp_path / "run" / "tensorboard")
    assert events.Tags()["images"] == ["test/confusion_matrix", "test/most_confidently_wrong"]
    picture = events.Images("test/most_confidently_wrong")[0]
    assert picture.width == 8 * 32  # a grid, eight in a row
    summary = read_summary(tmp_path / "run")
    for key in ("val_accuracy", "test_accuracy"):
        assert [event.value for event in events.Scalars(f"result/{key}")] == [pytest.approx(summary[key])]
    accuracies = [tag for tag in events.Tags()["scalars"] if tag.startswith("test/class_accuracy/")]
    mean = sum(events.Scalars(tag)[0].value for tag in accuracies) / len(accuracies)
    assert mean == pytest.approx(summary["test_accuracy"])  # the classes of this data are of one size
    (text,) = events.Tensors("test/most_confidently_wrong/text_summary")
    assert "| class | predicted | confidence |" in text.tensor_proto.string_val[0].decode()


def test_a_run_that_was_cut_and_resumed_has_no_point_twice(tmp_path: Path, start: Start, command: Command) -> None:
    run = start(*TRACKED, *SLOW, "epochs=3", "checkpoint.every_minutes=0.0001", "hydra.run.dir=run")
    run.wait_for(r"Epoch \[2/3\], Step \[3/6\]")
    run.send(signal.SIGKILL)
    run.end()
    assert command("resume=run", SLOW[0]).returncode == 0
    assert_equals_metrics(tmp_path / "run")
    assert len([*(tmp_path / "run" / "tensorboard").glob("events*")]) == 1


def test_a_report_is_pictures_and_text(tmp_path: Path) -> None:
    from PIL import Image

    (tmp_path / "report.md").write_text("# Report")
    Image.new("RGB", (40, 30)).save(tmp_path / "accuracy_vs_lr.png")
    with TensorboardTracker(RunInfo("report", None, {}, folder=tmp_path, job_type="report")) as tracker:
        tracker.log_report(tmp_path)
    events = read_events(tmp_path / "tensorboard")
    (picture,) = events.Images("report/accuracy_vs_lr")
    assert (picture.width, picture.height) == (40, 30)
    (text,) = events.Tensors("report/text_summary")
    assert text.tensor_proto.string_val[0] == b"# Report"


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    original = builtins.__import__

    def refuse(name: str, *args: Any) -> Any:
        if name == "torch.utils.tensorboard":
            raise ImportError(name)
        return original(name, *args)

    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(UserError, match=r"pip install 'cifar-framework\[tb\]'"):
        TensorboardTracker(RunInfo("run", None, {}, folder=tmp_path)).__enter__()
