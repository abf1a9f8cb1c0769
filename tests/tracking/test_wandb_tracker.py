"""Weights & Biases offline and against servers that do not answer or refuse."""

import csv
import io
import json
import logging
import math
import os
import shlex
import signal
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from functools import lru_cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from cifar.base.errors import UserError
from cifar.base.paths import python
from cifar.experiment.building import create
from cifar.tracking.tracking import Guard, RunInfo
from cifar.tracking.wandb_names import fitting
from cifar.tracking.wandb_settings import choose_mode, environment, has_api_key
from cifar.tracking.wandb_tracker import WandbTracker
from tests.conftest import SLOW, TINY, Command, Compose, Start, read_metrics, read_summary

INFO = RunInfo("2026-11-23/04-12-00", None, {"lr": 0.1, "data": {"limit": None}})


def make_tracker(folder: Path, mode: str = "auto", timeout_seconds: float = 2) -> WandbTracker:
    return WandbTracker(INFO, mode, "cifar-tests", None, str(folder), timeout_seconds)


def records(run_folder: Path) -> list[dict[str, Any]]:
    """Return what an offline run holds, read back with wandb's own tool."""
    (held,) = run_folder.glob("*.wandb")
    return read_back(run_folder, held.stat().st_mtime_ns)


@lru_cache
def read_back(run_folder: Path, _time: int) -> list[dict[str, Any]]:
    """Return the records, once for what was written last at that time."""
    command = [sys.executable, "-m", "wandb", "leet", "inspect", "--json", str(run_folder)]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    return [json.loads(line) for line in lines]


@pytest.mark.parametrize(
    ("mode", "variables", "expected"),
    [
        ("offline", {"WANDB_API_KEY": "k"}, "offline"),
        ("auto", {}, "offline"),
        ("auto", {"WANDB_MODE": "disabled"}, "disabled"),
        ("auto", {"WANDB_MODE": "dryrun", "WANDB_API_KEY": "k"}, "offline"),
        ("auto", {"WANDB_MODE": "online"}, "offline"),  # without a key wandb would ask for one and wait
        ("auto", {"WANDB_MODE": "offline", "WANDB_API_KEY": "k"}, "offline"),
        ("auto", {"WANDB_API_KEY": "k", "WANDB_BASE_URL": "http://127.0.0.1:1"}, "offline"),
    ],
)
def test_choice_of_mode(monkeypatch: pytest.MonkeyPatch, mode: str, variables: dict[str, str], expected: str) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert choose_mode(mode, environment(), 20)[0] == expected


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("WANDB_MODE", "of", "WANDB_MODE=of is not possible for Weights & Biases: Input should be 'online'"),
        ("WANDB_INIT_TIMEOUT", "soon", "WANDB_INIT_TIMEOUT=soon is not possible"),
        ("WANDB_PROJECT", "a/b", "Invalid project name 'a/b'"),
        ("WANDB_RUN_ID", "a:b", "Run ID cannot contain"),
    ],
)
def test_an_impossible_variable_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, value: str, message: str
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(UserError, match=message):
        Guard(make_tracker(tmp_path)).__enter__()


def test_online_without_key_or_server_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match=r"tracker\.mode=online is not possible: no API key"):
        choose_mode("online", environment(), 20)
    monkeypatch.setenv("WANDB_API_KEY", "k")
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:1")
    with pytest.raises(UserError, match=r"no answer from http://127\.0\.0\.1:1"):
        choose_mode("online", environment(), 20)


def test_a_key_in_netrc_counts_for_its_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "netrc").write_text("machine api.wandb.ai\n  login user\n  password " + 40 * "a" + "\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    assert has_api_key("https://api.wandb.ai")
    assert not has_api_key("https://wandb.example.org")
    (tmp_path / "netrc").write_text("nonsense here")
    assert not has_api_key("https://api.wandb.ai")
    monkeypatch.setenv("NETRC", str(tmp_path / "absent"))
    assert not has_api_key("https://api.wandb.ai")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("mode", "onlin"),
        ("timeout_seconds", 0),
        ("timeout_seconds", "soon"),
        ("timeout_seconds", math.inf),
        ("project", "a/b"),
        ("project", ""),
        ("name", ["a"]),
        ("notes", {"a": 1}),
        ("tags", "a"),
    ],
)
def test_impossible_values_are_named(key: str, value: Any) -> None:
    arguments = {"mode": "auto", "project": "p", "entity": None, "dir": ".", "timeout_seconds": 1.0, key: value}
    with pytest.raises(UserError, match=f"tracker.{key}="):
        WandbTracker(INFO, **arguments)


def test_a_name_may_be_a_number(tmp_path: Path, given: list[dict[str, Any]], compose: Compose) -> None:
    words = ["tracker.project=2026", "tracker.name=1e-3", "tracker.tags=[7]", f"tracker.dir={tmp_path}"]
    create(compose(*words).tracker, INFO).init("offline", environment())
    assert [given[0][key] for key in ("project", "name", "tags")] == ["2026", "0.001", ["7"]]


@pytest.mark.parametrize("variables", [{}, {"WANDB_INSECURE_DISABLE_SSL": "true"}])
def test_a_server_whose_certificate_is_its_own_counts_where_the_environment_says_so(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str]
) -> None:
    def answer(url: str, timeout: float, context: ssl.SSLContext) -> io.BytesIO:
        if context.verify_mode != ssl.CERT_NONE or context.check_hostname:
            raise ssl.SSLCertVerificationError("self-signed certificate")
        return io.BytesIO()

    monkeypatch.setattr("urllib.request.urlopen", answer)
    for name, value in {"WANDB_API_KEY": "k", "WANDB_BASE_URL": "https://wandb.example.org", **variables}.items():
        monkeypatch.setenv(name, value)
    assert choose_mode("auto", environment(), 20)[0] == ("online" if variables else "offline")


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
    view, upload = [record.message for record in caplog.records if record.name.startswith("cifar")]
    (folder,) = Path("wandb").glob("offline-run-*")
    assert view.startswith("Weights & Biases: offline (")
    assert view.endswith(f"View: {python()} -m wandb leet {folder}")
    assert upload == f"Upload to Weights & Biases: {python()} -m wandb sync {folder}"
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


@pytest.fixture(name="given")
def _given(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Return what wandb.init is called with, which then does nothing."""
    import wandb

    given: list[dict[str, Any]] = []
    monkeypatch.setattr(wandb, "init", lambda **options: given.append(options))
    return given


def test_under_its_own_sweep_agent_wandb_chooses_id_project_and_entity(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: list[dict[str, Any]]
) -> None:
    make_tracker(tmp_path).init("offline", environment())
    for name, value in {"WANDB_SWEEP_ID": "abc", "WANDB_RUN_ID": "def"}.items():
        monkeypatch.setenv(name, value)
    tracker = make_tracker(tmp_path)
    tracker.init("offline", environment())
    assert [[options[key] for key in ("id", "project", "entity")] for options in given] == [
        [INFO.id, "cifar-tests", None], [None, None, None],
    ]  # fmt: skip
    assert tracker.info.id == "def"  # what a checkpoint keeps, so that the run is found again


@pytest.mark.parametrize("is_resumed", [False, True])
@pytest.mark.parametrize("mode", ["online", "offline"])
def test_only_a_run_that_goes_on_online_is_one_that_the_server_may_have(
    tmp_path: Path, given: list[dict[str, Any]], mode: str, is_resumed: bool
) -> None:
    WandbTracker(replace(INFO, is_resumed=is_resumed), dir=str(tmp_path)).init(mode, environment())
    assert given[0]["resume"] == ("allow" if is_resumed and mode == "online" else None)
    assert given[0]["id"] == INFO.id


# What Weights & Biases documents, and what its run then holds.
DOCUMENTED: dict[str, tuple[str, str, Any]] = {
    "WANDB_CACHE_DIR": ("cache", "", None),
    "WANDB_CONFIG_DIR": ("config", "settings_system", "config/settings"),
    "WANDB_CONSOLE": ("wrap", "console", "wrap"),
    "WANDB_DATA_DIR": ("data", "", None),
    "WANDB_ARTIFACT_DIR": ("artifacts", "", None),
    "WANDB_DISABLE_CODE": ("true", "save_code", False),
    "WANDB_DISABLE_GIT": ("true", "disable_git", True),
    "WANDB_DOCKER": ("image@sha256:1", "docker", "image@sha256:1"),
    "WANDB_ENTITY": ("team", "entity", "team"),
    "WANDB_ERROR_REPORTING": ("false", "", None),
    "WANDB_HOST": ("node7", "host", "node7"),
    "WANDB_IGNORE_GLOBS": ("*.tmp,*.log", "ignore_globs", ("*.tmp", "*.log")),
    "WANDB_INIT_TIMEOUT": ("7", "init_timeout", 7.0),
    "WANDB_JOB_NAME": ("my job", "job_name", "my job"),
    "WANDB_JOB_TYPE": ("training", "run_job_type", "training"),
    "WANDB_MODE": ("offline", "mode", "offline"),
    "WANDB_NAME": ("baseline", "run_name", "baseline"),
    "WANDB_NOTEBOOK_NAME": ("a.ipynb", "notebook_name", "a.ipynb"),
    "WANDB_NOTES": ("The first try, as in the paper.", "run_notes", "The first try, as in the paper."),
    "WANDB_PROJECT": ("thesis", "project", "thesis"),
    "WANDB_RESUME": ("allow", "resume", "allow"),
    "WANDB_RUN_GROUP": ("chapter 2", "run_group", "chapter 2"),
    "WANDB_RUN_ID": ("my-run-1", "run_id", "my-run-1"),
    "WANDB_QUIET": ("true", "quiet", True),
    "WANDB_SILENT": ("false", "silent", False),
    "WANDB_TAGS": (f"first,,{80 * 'x'}", "run_tags", ("first", fitting(80 * "x", 64))),
    "WANDB_USERNAME": ("me", "username", "me"),
    "WANDB_USER_EMAIL": ("me@example.org", "email", "me@example.org"),
}


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # wandb leaves WANDB_CONFIG_PATHS open
def test_every_variable_that_is_documented_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WANDB_API_KEY", 40 * "a")  # which WANDB_MODE makes needless
    (tmp_path / "more.yaml").write_text("owner:\n  value: me\n")
    monkeypatch.setenv("WANDB_CONFIG_PATHS", "more.yaml")
    for name, (value, _, _) in DOCUMENTED.items():
        monkeypatch.setenv(name, value)
    with WandbTracker(INFO) as tracker:
        found = {setting: getattr(tracker.run.settings, setting) for _, setting, _ in DOCUMENTED.values() if setting}
        assert tracker.run.config["owner"] == "me"
        assert tracker.info.id == "my-run-1"
    assert found == {setting: expected for _, setting, expected in DOCUMENTED.values() if setting}
    for name in DOCUMENTED:
        monkeypatch.delenv(name)
    monkeypatch.delenv("WANDB_CONFIG_PATHS")
    (folder,) = Path("wandb").glob("offline-run-*-my-run-1")
    (record,) = [record["run"] for record in records(folder) if record["type"] == "run"]
    assert (record["project"], record["entity"], record["display_name"]) == ("thesis", "team", "baseline")
    assert (record["run_group"], record["job_type"], record["run_id"]) == ("chapter 2", "training", "my-run-1")
    assert (record["tags"], record["notes"]) == (["first", fitting(80 * "x", 64)], DOCUMENTED["WANDB_NOTES"][0])


def test_what_is_typed_beats_the_environment_and_our_defaults_do_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, compose: Compose, given: list[dict[str, Any]]
) -> None:
    typed = {"project": "p", "entity": "e", "name": "n", "group": "g", "job_type": "j", "notes": "o", "tags": ["a"]}
    words = [f"tracker.{key}={value if isinstance(value, str) else '[a]'}" for key, value in typed.items()]
    plain = {"project": "cifar", "entity": None, "name": INFO.name, **dict.fromkeys(("group", "job_type", "notes"))}
    for chosen in ([], words):
        create(compose(*chosen, f"tracker.dir={tmp_path}").tracker, INFO).init("offline", environment())
    monkeypatch.setenv("WANDB_INIT_TIMEOUT", "3")
    for key in ("project", "entity", "name", "job_type", "notes", "tags"):
        monkeypatch.setenv(f"WANDB_{key.upper()}", "environment")
    monkeypatch.setenv("WANDB_RUN_GROUP", "environment")
    for chosen in ([], [*words, "tracker.timeout_seconds=5"]):
        create(compose(*chosen, f"tracker.dir={tmp_path}").tracker, INFO).init("offline", environment())
    assert [{key: options[key] for key in typed} for options in (given[0], given[1], given[3])] == [
        {**plain, "tags": None}, typed, typed,
    ]  # fmt: skip
    # what is None in a call of wandb.init is taken from the environment by itself
    assert {given[2][key] for key in typed} == {"environment", None}
    assert [options["settings"].init_timeout for options in given] == [20, 20, 3, 5]


def test_the_runs_of_a_sweep_differ_in_name_and_id_whatever_the_environment_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: list[dict[str, Any]]
) -> None:
    monkeypatch.setenv("WANDB_NAME", "baseline")
    monkeypatch.setenv("WANDB_RUN_ID", "mine")
    for info in (RunInfo("lr=0.1", "sweep", {}, id="a"), RunInfo("lr=0.2", "sweep", {}, id="b")):
        WandbTracker(info, dir=str(tmp_path)).init("offline", environment())
    WandbTracker(RunInfo("report sweep", "sweep", {}, id="c", job_type="report")).init("offline", environment())
    resumed = RunInfo("lr=0.1", "sweep", {}, id="mine-a", is_resumed=True)
    WandbTracker(resumed, dir=str(tmp_path)).init("offline", environment())
    assert [(options["name"], options["id"], options["job_type"]) for options in given] == [
        ("baseline lr=0.1", "mine-a", None),
        ("baseline lr=0.2", "mine-b", None),
        ("baseline report sweep", "mine-c", "report"),
        ("baseline lr=0.1", "mine-a", None),
    ]


def test_what_is_too_long_for_the_service_is_shortened_and_still_differs(
    tmp_path: Path, given: list[dict[str, Any]]
) -> None:
    long = [f"init_from={200 * 'x'}{number}{200 * 'y'} seed=3" for number in range(2)]
    for name in long:
        WandbTracker(replace(INFO, name=name, group=name), dir=str(tmp_path), tags=[name]).init(
            "offline", environment()
        )
    names = [options["name"] for options in given]
    assert [len(name) for name in names] == [128, 128]
    assert names[0] != names[1]
    assert all(name.startswith("init_from=xxx") and name.endswith("yyy seed=3") for name in names)
    assert [(options["group"], [len(tag) for tag in options["tags"]]) for options in given] == [
        (name, [64]) for name in names
    ]
    assert fitting("short", 128) == "short"
    assert len(fitting(129 * "ä", 128)) == 128


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


def steps_of(run_folder: Path) -> dict[int, dict[str, Any]]:
    """Return the metrics of an offline run by their step, without its own of the time."""
    items = [record["history"]["item"] for record in history(run_folder)]
    kept = [{key: value for key, value in item.items() if not key.startswith("_") or key == "_step"} for item in items]
    return {int(item.pop("_step")): item for item in kept}


def test_the_last_part_of_a_run_that_was_cut_and_resumed_offline_holds_every_step(
    tmp_path: Path, start: Start, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "/usr/bin:/bin")  # as without an activated environment
    words = [*TINY, *SLOW, "tracker=wandb", "epochs=2", "data.val_size=20"]
    run = start(*words, "hydra.run.dir=run")
    run.wait_for(r"Epoch \[2/2\], Step \[1/6\]")
    run.send(signal.SIGTERM)
    assert run.end() == 143, run.text
    again = command("resume=run", SLOW[0])
    assert again.returncode == 0, again
    (last,), (first,) = ([*(tmp_path / "wandb").glob(name)] for name in ("offline-run-*", "replaced-offline-run-*"))
    assert first.name.rpartition("-")[2] == last.name.rpartition("-")[2]
    expected: dict[int, dict[str, Any]] = {}
    for line in read_metrics(tmp_path / "run"):
        metrics = {key: value for key, value in line.items() if key not in ("epoch", "time_seconds", "step")}
        expected.setdefault(line["step"], {}).update(metrics)
    found = steps_of(last)
    assert [*expected] == [*range(1, 13)]
    assert {step: {key: found[step][key] for key in metrics} for step, metrics in expected.items()} == {
        step: pytest.approx(metrics) for step, metrics in expected.items()
    }
    assert 0 < len(steps_of(first)) < 12
    listed = subprocess.run(
        [sys.executable, "-m", "wandb", "sync", "--dry-run", "wandb"], cwd=tmp_path, capture_output=True, text=True
    )
    assert "Would sync 1 run(s)" in listed.stderr + listed.stdout
    assert (tmp_path / "wandb" / "latest-run").resolve() == last  # which it names so
    for said in [said for said in again.stdout.splitlines() if "Weights & Biases" in said]:
        printed = said.partition("View: " if "View: " in said else "Biases: ")[2]
        assert printed.endswith(f" wandb/{last.name}")
        bare = {**os.environ, "PATH": "/usr/bin:/bin"}  # as without an activated environment
        program = [*shlex.split(printed)[:-1], "--help"]
        assert subprocess.run(program, cwd=tmp_path, env=bare, capture_output=True).returncode == 0, printed


def test_a_server_that_has_the_first_steps_gets_only_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = [{"step": step, "epoch": 1, "time_seconds": 0.1, "train/loss": step / 4 or None} for step in (0, 1, 2, 3)]
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (tmp_path / "metrics.jsonl").write_text(text + '{"step": 4, "epo')
    logged: list[tuple[dict[str, float], int]] = []

    class Server:
        step, url, dir = 2, "https://example.org", str(tmp_path / "wandb" / "run-2-1" / "files")

        def __enter__(self) -> None: ...
        def define_metric(self, name: str, summary: str) -> None: ...
        def finish(self, exit_code: int) -> None: ...
        def log(self, metrics: dict[str, float], step: int) -> None:
            logged.append((metrics, step))

    info = replace(INFO, id="1", is_resumed=True, folder=tmp_path, kept_bytes=len(text) + 5)
    for name in ("offline-run-1-1", "offline-run-1-2", "run-2-1"):
        (tmp_path / "wandb" / name).mkdir(parents=True)
    assert math.isnan(next(info.kept_metrics())[0]["train/loss"])
    monkeypatch.setattr("cifar.tracking.wandb_tracker.choose_mode", lambda *_: ("online", ""))
    monkeypatch.setattr(WandbTracker, "init", lambda *_: Server())
    with WandbTracker(info):
        pass
    assert logged == [({"train/loss": 0.5}, 2), ({"train/loss": 0.75}, 3)]
    kept = {"replaced-offline-run-1-1", "offline-run-1-2", "run-2-1"}  # uploaded later, the first would replace it all
    assert {path.name for path in (tmp_path / "wandb").iterdir()} == kept
