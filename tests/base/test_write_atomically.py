"""A file that is written whole or not at all, whenever the power fails."""

import os
from pathlib import Path

import pytest

from cifar.base.run_folder import write_atomically, write_json
from cifar.training.checkpoint import Checkpoints

Calls = list[tuple[str, str]]


@pytest.fixture(name="calls")
def _calls(monkeypatch: pytest.MonkeyPatch) -> Calls:
    """Return what is done to the disk from now on: what was flushed to it, with its content then, and renamed."""
    calls: Calls = []
    fsync, replace = os.fsync, Path.replace

    def spied_fsync(number: int) -> None:
        calls.append(("fsync", Path(f"/proc/self/fd/{number}").read_text()))
        fsync(number)

    def spied_replace(path: Path, target: Path) -> Path:
        calls.append(("rename", target.name))
        return replace(path, target)

    monkeypatch.setattr(os, "fsync", spied_fsync)
    monkeypatch.setattr(Path, "replace", spied_replace)
    return calls


def test_the_whole_content_is_on_the_disk_before_it_gets_its_name(tmp_path: Path, calls: Calls) -> None:
    """Else a power failure after the rename may leave an empty file under the name."""
    path = tmp_path / "file"
    path.write_text("old")
    seen: list[str] = []

    def before_rename() -> None:
        calls.append(("before", ""))
        seen.append(path.read_text())

    write_atomically(path, lambda file: file.write(b"new content"), before_rename)
    assert calls == [("fsync", "new content"), ("before", ""), ("rename", "file")]
    assert seen == ["old"]
    assert path.read_text() == "new content"
    assert os.listdir(tmp_path) == ["file"]


def test_a_summary_and_a_checkpoint_are_written_so(
    tmp_path: Path, calls: Calls, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_json(tmp_path / "summary.json", {"status": "running"})
    assert calls == [("fsync", '{\n  "status": "running"\n}\n'), ("rename", "summary.json")]
    calls.clear()
    monkeypatch.setattr("cifar.training.checkpoint.sealed", lambda content: memoryview(content["text"].encode()))
    checkpoints = Checkpoints(tmp_path, every_epochs=None, every_minutes=None, keep=2)
    checkpoints.save({"text": "one"})
    checkpoints.save({"text": "two"})
    assert calls == [
        ("fsync", "one"), ("rename", "checkpoint.pt"),
        ("fsync", "two"), ("rename", "checkpoint-1.pt"), ("rename", "checkpoint.pt"),
    ]  # fmt: skip
