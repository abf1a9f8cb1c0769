"""A search by several machines that share nothing but a PostgreSQL server: real processes, one of them killed."""

import re
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from cifar.sweeps.shared_homes import PostgresHome, home_for_reading
from cifar.sweeps.study import latest_trials, open_study
from tests.conftest import QUIET, SLOW, read_summary
from tests.postgres import PASSWORD, QUOTED, Server, postgres
from tests.processes import Run

pytestmark = pytest.mark.cluster

TUNE = ("-m", "cifar", "tune")
STOPPING = "Stopping: the running step is finished and saved first. Once more stops at once.\n"
LR = "lr=tag(log, interval(1e-4, 1))"
WORDS = [*QUIET, *SLOW, "model.seconds=0.15", "data.val_size=20", "epochs=2", LR, "trials=7", "grace=4", "folder=mine"]


@pytest.fixture(name="server", scope="module")
def _server() -> Iterator[Server]:
    """Return a server that runs."""
    with postgres() as server:
        yield server


@pytest.fixture(name="machines")
def _machines(tmp_path: Path) -> Iterator[list[Run]]:
    """Return a list for the processes, which are killed at the end if they still run."""
    machines: list[Run] = []
    yield machines
    for machine in machines:
        if machine.process.is_alive():
            machine.send(signal.SIGKILL, to_group=True)
        machine.process.join()


def begin(tmp_path: Path, number: int, server: Server) -> Run:
    """Give the command on a machine of its own: another folder for everything."""
    (cwd := tmp_path / str(number)).mkdir(exist_ok=True)
    return Run(cwd, [*TUNE, *WORDS, f"storage={server.url}"], tmp_path / "logs")


def test_three_machines_make_exactly_the_trials_and_one_that_is_killed_gives_its_own_back(
    tmp_path: Path, server: Server, machines: list[Run]
) -> None:
    machines += [begin(tmp_path, number, server) for number in range(3)]
    for machine in machines:
        machine.wait_for(r"Trial \d+ starts")
    lost = machines[0].kill_in_a_trial(tmp_path / "0" / "mine")
    for machine in machines[1:]:
        assert machine.end() == 0, machine.text
        assert "All 7 trials of mine are done" in machine.output
    study = open_study(PostgresHome(tmp_path / "mine", 4, server.url))
    latest = latest_trials(study)
    assert sorted(latest) == [*range(7)]
    assert {trial.state.name for trial in latest.values()} == {"COMPLETE"}
    states = [trial.state.name for trial in study.get_trials()]
    assert sorted(states) == ["COMPLETE"] * 7 + ["FAIL"]
    (failed,) = [trial for trial in study.get_trials() if trial.state.name == "FAIL"]
    assert failed.user_attrs["run"] == lost
    assert failed.params == latest[lost].params
    started = [int(number) for machine in machines for number in re.findall(r"Trial (\d+) starts", machine.output)]
    assert sorted(started) == sorted([*range(7), lost])
    check_reports(tmp_path, machines[1:], server)
    no_password_anywhere(tmp_path)


def check_reports(tmp_path: Path, machines: list[Run], server: Server) -> None:
    """Check that one of the machines has the report on the trials of all, and that the other one says so."""
    reports = [*tmp_path.glob("*/mine/report.md")]
    assert len(reports) == 1
    folder = reports[0].parent
    assert reports[0].read_text().count("1 completed") == 7
    for name in ("history", "importances"):
        assert (folder / f"{name}.png").exists()
    (other,) = [machine for machine in machines if "The report was made by process" in machine.output]
    assert f"in {folder}." in other.output
    latest = latest_trials(open_study(PostgresHome(folder, 4, server.url)))
    for number, trial in latest.items():
        assert read_summary(folder / str(number))["val_accuracy"] == trial.value
    copy = home_for_reading(folder)
    assert copy is not None
    assert {number: trial.params for number, trial in latest_trials(open_study(copy)).items()} == {
        number: trial.params for number, trial in latest.items()
    }


def no_password_anywhere(folder: Path) -> None:
    """Check that no file, printed text among them, has the database's password."""
    paths = [path for path in folder.rglob("*") if path.is_file()]
    assert any(path.suffix == ".err" for path in paths)
    for path in paths:
        content = path.read_bytes()
        assert PASSWORD.encode() not in content, path
        assert QUOTED.encode() not in content, path


def test_a_machine_that_is_stopped_gives_its_trial_back_at_once_and_the_way_on_hides_the_password(
    tmp_path: Path, server: Server, machines: list[Run]
) -> None:
    name = "folder=stopped"
    words = [*WORDS[:-3], "trials=2", "grace=600", name, f"storage={server.url}"]
    for number in range(2):
        (tmp_path / str(number)).mkdir()
        machines.append(Run(tmp_path / str(number), [*TUNE, *words], tmp_path / "logs"))
    for machine in machines:
        machine.wait_for(r"Step \[2/6\]")
    first, second = machines
    first.send(signal.SIGTERM)
    assert first.end() == 143
    again = f"cifar tune folder=stopped 'storage=postgresql://cifar:***@127.0.0.1:{server.port}/postgres'"
    assert first.errors == f"{STOPPING}Interrupted. Continue with: {again} {SLOW[0]}\n"
    assert second.end() == 0, second.text  # long before the grace of a machine that died has passed
    assert "All 2 trials of stopped are done" in second.output
    no_password_anywhere(tmp_path)


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("postgresql://cifar:wrong%20one@127.0.0.1:{port}/postgres", "password authentication failed"),
        ("postgresql://cifar:{quoted}@127.0.0.1:{port}/nowhere", 'database "nowhere" does not exist'),
        ("postgresql://cifar:{quoted}@127.0.0.1:1/postgres", "onnection refused"),
    ],
)
def test_a_database_that_does_not_open_is_one_message_without_the_password(
    tmp_path: Path, server: Server, machines: list[Run], url: str, reason: str
) -> None:
    url = url.format(port=server.port, quoted=QUOTED)
    machines.append(Run(tmp_path, [*TUNE, *WORDS, f"storage={url}"], tmp_path / "logs"))
    assert machines[0].end() == 1
    assert reason in machines[0].errors
    assert "'mine' in postgresql://cifar:***@127.0.0.1" in machines[0].errors
    assert "Traceback" not in machines[0].errors
    assert "wrong" not in machines[0].text
    no_password_anywhere(tmp_path)
