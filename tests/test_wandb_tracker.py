"""Weights & Biases offline and against servers that do not answer or refuse."""

import csv
import json
import logging
import math
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from cifar.errors import UserError
from cifar.tracking import Guard, RunInfo
from cifar.wandb_tracker import WandbTracker, has_api_key
from tests.conftest import TINY, Command, read_metrics, read_summary

INFO = RunInfo("2026-11-23/04-12-00", None, {"lr": 0.1, "data": {"limit": None}})


def make_tracker(folder: Path, mode: str = "auto", timeout_seconds: float = 2) -> WandbTracker:
    return WandbTracker(INFO, mode, "cifar-tests", None, str(folder), timeout_seconds)


def records(run_folder: Path) -> list[dict[str, Any]]:
    """Return what an offline run holds, read back with wandb's own tool."""
    command = [sys.executable, "-m", "wandb", "leet", "inspect", "--json", str(run_folder)]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    return [json.loads(line) for line in lines]


@pytest.mark.parametrize(
    ("mode", "environment", "expected"),
    [
        ("offline", {"WANDB_API_KEY": "k"}, "offline"),
        ("auto", {}, "offline"),
        ("auto", {"WANDB_MODE": "disabled"}, "disabled"),
        ("auto", {"WANDB_MODE": "online"}, "offline"),  # without a key wandb would ask for one and wait
        ("auto", {"WANDB_MODE": "offline", "WANDB_API_KEY": "k"}, "offline"),
        ("auto", {"WANDB_API_KEY": "k", "WANDB_BASE_URL": "http://127.0.0.1:1"}, "offline"),
    ],
)
def test_choice_of_mode(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: str, environment: dict[str, str], expected: str
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert make_tracker(tmp_path, mode).choose_mode()[0] == expected


def test_an_unknown_wandb_mode_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "of")
    with pytest.raises(UserError, match="WANDB_MODE=of is not possible"):
        make_tracker(tmp_path).choose_mode()


def test_online_without_key_or_server_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match=r"tracker\.mode=online is not possible: no API key"):
        make_tracker(tmp_path, "online").choose_mode()
    monkeypatch.setenv("WANDB_API_KEY", "k")
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:1")
    with pytest.raises(UserError, match=r"no answer from http://127\.0\.0\.1:1"):
        make_tracker(tmp_path, "online").choose_mode()


def test_a_key_in_netrc_counts_for_its_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "netrc").write_text("machine api.wandb.ai\n  login user\n  password " + 40 * "a" + "\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    assert has_api_key("https://api.wandb.ai")
    assert not has_api_key("https://wandb.example.org")
    (tmp_path / "netrc").write_text("nonsense here")
    assert not has_api_key("https://api.wandb.ai")
    monkeypatch.setenv("NETRC", str(tmp_path / "absent"))
    assert not has_api_key("https://api.wandb.ai")


@pytest.mark.parametrize(("key", "value"), [("mode", "onlin"), ("timeout_seconds", 0)])
def test_impossible_values_are_named(key: str, value: Any) -> None:
    arguments = {"mode": "auto", "project": "p", "entity": None, "dir": ".", "timeout_seconds": 1.0, key: value}
    with pytest.raises(UserError, match=f"tracker.{key}="):
        WandbTracker(INFO, **arguments)


class Refusing(BaseHTTPRequestHandler):
    """A server that takes connections and answers with `status`, or for 0 never."""

    status = 0

    def do_GET(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.status == 0:
            time.sleep(30)
        self.send_response(self.status or 500)
        self.end_headers()

    do_POST = do_GET  # noqa: N815

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(name="server")
def _server(request: pytest.FixtureRequest) -> Iterator[str]:
    handler = type("Handler", (Refusing,), {"status": request.param})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        server.daemon_threads, server.block_on_close = True, False
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.mark.parametrize("server", [0, 404, 500], indirect=True, ids=["silent", "404", "500"])
def test_a_key_with_a_server_that_does_not_answer_or_refuses_goes_on_offline_soon(
    server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WANDB_BASE_URL", server)
    monkeypatch.setenv("WANDB_API_KEY", 40 * "a")
    start = time.perf_counter()
    with caplog.at_level(logging.INFO, "cifar"), make_tracker(Path(".")) as tracker:
        seconds = time.perf_counter() - start
        tracker.log({"train/loss": 1.0}, step=1)
    assert seconds < 30
    (message,) = [record.message for record in caplog.records if record.name.startswith("cifar")]
    (folder,) = Path("wandb").glob("offline-run-*")
    assert message.startswith("Weights & Biases: offline (")
    assert f"View: wandb leet {folder}  Upload: wandb sync {folder}" in message
    assert len(history(folder)) == 1


def test_a_sweeps_offline_runs_hold_what_metrics_jsonl_holds_also_when_a_job_fails(
    tmp_path: Path, command: Command
) -> None:
    result = command("-m", *TINY, "tracker=wandb", "lr=0.1,1e30,0.01", "optimizer=sgd", "data.val_size=20", "epochs=2")
    assert result.returncode == 0
    (sweep,) = tmp_path.glob("multirun/*/*")
    group = "/".join(sweep.parts[-2:])
    runs = {}
    for folder in (tmp_path / "wandb").glob("offline-run-*"):
        (record,) = [record["run"] for record in records(folder) if record["type"] == "run"]
        assert record["run_group"] == group
        if record.get("job_type") == "report":
            report = folder
        else:
            runs[record["display_name"]] = folder
    expected_status = {"lr=0.1": "completed", "lr=1e+30": "diverged", "lr=0.01": "completed"}
    assert runs.keys() == expected_status.keys()
    for number, (name, status) in enumerate(expected_status.items()):
        folder, job = runs[name], sweep / str(number)
        assert read_summary(job)["status"] == status
        exit_codes = [record["exit"].get("exit_code", 0) for record in records(folder) if record["type"] == "exit"]
        assert exit_codes == [0 if status == "completed" else 1]
        expected: dict[int, dict[str, Any]] = {}
        for line in read_metrics(job):
            metrics = {key: value for key, value in line.items() if key not in ("epoch", "time_seconds", "step")}
            expected.setdefault(line["step"], {}).update(metrics)
        logged = {item["_step"]: item for item in (record["history"]["item"] for record in history(folder))}
        for step, metrics in expected.items():
            found = {key: None if logged[step][key] == "NaN" else logged[step][key] for key in metrics}
            assert found == pytest.approx(metrics), (number, step)
        kept = [record["metric"] for record in records(folder) if record["type"] == "metric"]
        assert {metric["name"]: metric["summary"] for metric in kept} == {
            "val/accuracy": {"max": True, "last": True}, "val/loss": {"min": True, "last": True},
            "test/accuracy": {"max": True, "last": True}, "test/loss": {"min": True, "last": True},
        }  # fmt: skip
        assert_shows_the_test_images(folder, read_summary(job)["test_accuracy"])
    assert_is_the_report(report, sweep)


def table(run_folder: Path, name: str) -> dict[str, Any]:
    """Return a logged table: its columns and data."""
    (path,) = (run_folder / "files" / "media" / "table" / name).parent.glob(f"{Path(name).name}_*.table.json")
    content = json.loads(path.read_text())
    assert isinstance(content, dict)
    return content


def assert_shows_the_test_images(run_folder: Path, accuracy: float) -> None:
    matrix = table(run_folder, "test/confusion_matrix_table")["data"]
    assert sum(count for *_, count in matrix) == 30
    assert sum(count for actual, predicted, count in matrix if actual == predicted) == pytest.approx(30 * accuracy)
    classes = dict(table(run_folder, "test/class_accuracy_table")["data"])
    assert sum(classes.values()) / len(classes) == pytest.approx(accuracy)  # the classes of this data are of one size
    wrong = table(run_folder, "test/most_confidently_wrong")
    assert wrong["columns"] == ["picture", "class", "predicted", "confidence"]
    assert len(wrong["data"]) == round(30 * (1 - accuracy))
    assert all(actual != predicted for _, actual, predicted, _ in wrong["data"])
    pictures = [*run_folder.glob("files/media/images/test/most_confidently_wrong_pictures*.png")]
    assert len(pictures) == len(wrong["data"])
    for picture in pictures:
        with Image.open(picture) as image:
            assert image.size == (32, 32)
    sure = [confidence for *_, confidence in wrong["data"] if math.isfinite(confidence)]
    assert sure == sorted(sure, reverse=True)
    entries = json.dumps([record["summary"] for record in records(run_folder) if record["type"] == "summary"])
    assert all(f"test/class_accuracy/{name}" in entries for name in classes)


def assert_is_the_report(run_folder: Path, sweep: Path) -> None:
    (page,) = run_folder.glob("files/media/html/report/page_*.html")
    assert page.read_bytes() == (sweep / "report.html").read_bytes()
    pictures = {path.read_bytes() for path in run_folder.glob("files/media/images/report/*.png")}
    assert pictures == {path.read_bytes() for path in sweep.glob("*.png")}
    heading, *rows = csv.reader((sweep / "report.csv").read_text().splitlines())
    points = table(run_folder, "report/points")
    assert (points["columns"], points["data"]) == (heading, rows)


def test_under_its_own_sweep_agent_wandb_chooses_the_id(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import wandb

    given: list[dict[str, Any]] = []
    monkeypatch.setattr(wandb, "init", lambda **options: given.append(options))
    make_tracker(tmp_path).init("offline")
    monkeypatch.setenv("WANDB_SWEEP_ID", "abc")
    make_tracker(tmp_path).init("offline")
    assert [options["id"] for options in given] == [INFO.id, None]


def history(run_folder: Path) -> list[dict[str, Any]]:
    return [record for record in records(run_folder) if record["type"] == "history"]


def test_what_the_user_can_mend_in_a_tracker_is_raised() -> None:
    guard = Guard(make_tracker(Path("."), "online"))
    with pytest.raises(UserError, match="no API key"):
        guard.__enter__()


def test_a_resumed_run_that_the_server_refuses_keeps_its_id_offline(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_API_KEY", 40 * "a")
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:1")
    info = RunInfo("name", "group", {}, id="abcd1234", is_resumed=True)
    with WandbTracker(info, "auto", "cifar-tests", None, str(tmp_path), 2) as tracker:
        tracker.log({"train/loss": 1.0}, step=7)
    (folder,) = (tmp_path / "wandb").glob("offline-run-*")
    assert folder.name.endswith("-abcd1234")
    assert [int(record["history"]["item"]["_step"]) for record in history(folder)] == [7]
