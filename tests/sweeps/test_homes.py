"""Where searches are kept: what may be typed and shown, a journal shared by processes, and signs of life."""

import json
import re
from contextlib import ExitStack
from pathlib import Path

import optuna
import pytest
from optuna.distributions import FloatDistribution

from cifar.base.errors import UserError
from cifar.base.locks import locked
from cifar.base.run_folder import write_json
from cifar.commands.tune import split_own, tune
from cifar.sweeps import home as home_module
from cifar.sweeps.home import Home
from cifar.sweeps.shared_homes import JournalHome, PostgresHome, home_for_reading, home_of, masked
from cifar.sweeps.signs import alive
from cifar.sweeps.study import (
    SUMMARY,
    Search,
    claim,
    fetch_results,
    found_study,
    give_back,
    latest_trials,
    lost_runs,
    open_study,
    read_search,
    reported_by_other,
)
from tests.conftest import QUIET, SLOW, Command, Start, read_summary

TUNE = ("-m", "cifar", "tune")
LR = "lr=tag(log, interval(1e-4, 1))"


@pytest.mark.parametrize(
    ("typed", "shown"),
    [
        ("sqlite", "sqlite"),
        ("postgresql://me@host:5433/runs", "postgresql://me@host:5433/runs"),
        ("postgresql://me:secret@host/runs", "postgresql://me:***@host/runs"),
        ("storage=postgresql://me:secret@host/runs", "storage=postgresql://me:***@host/runs"),
        ("postgresql://me:@host/runs", "postgresql://me:***@host/runs"),
        ("postgresql:///runs?host=/var/run", "postgresql:///runs?host=/var/run"),
        ("postgresql://me@host/runs?password=secret", "postgresql://me@host/runs"),
        ("postgresql://host/runs?sslpassword=a@b", "postgresql://…"),
        ("postgresql://me:a/b@host/runs", "postgresql://…"),
        ("postgresql://me:a#b@host/runs", "postgresql://…"),
        ("postgresql://me:a@b@host/runs", "postgresql://…"),
    ],
)
def test_a_storage_is_shown_without_its_password(typed: str, shown: str) -> None:
    assert masked(typed) == shown


@pytest.mark.parametrize("word", ["storage=mysql://me:secret@host/runs", "storage=", "storage=study.db", "grace=0"])
def test_words_about_machines_are_checked_and_their_passwords_not_repeated(word: str) -> None:
    with pytest.raises(UserError, match="is not possible: it takes") as refused:
        split_own([word])
    assert "secret" not in str(refused.value)


def test_a_search_stays_where_it_is_kept(tmp_path: Path) -> None:
    assert type(home_of(tmp_path)) is Home
    assert type(home_of(tmp_path, "sqlite")) is Home
    assert type(home_of(tmp_path, "journal")) is JournalHome
    assert home_for_reading(tmp_path) is None
    (tmp_path / "study.db").touch()
    for storage in ("journal", "postgresql://host/runs"):
        with pytest.raises(UserError, match=r"is kept in study\.db: leave out storage="):
            home_of(tmp_path, storage)
    (tmp_path / "study.db").rename(tmp_path / "study.journal")
    assert type(home_of(tmp_path)) is JournalHome
    for storage in ("sqlite", "postgresql://host/runs"):
        with pytest.raises(UserError, match=r"is kept in study\.journal: leave out storage="):
            home_of(tmp_path, storage)
    (tmp_path / "study.journal").rename(tmp_path / "study-copy.db")
    for other in (None, "sqlite", "journal"):
        with pytest.raises(UserError, match="is kept in a PostgreSQL database: name it again"):
            home_of(tmp_path, other)
    assert type(home_of(tmp_path, "postgresql://host/runs")) is PostgresHome
    copy = home_for_reading(tmp_path)
    assert copy is not None
    assert copy.path == tmp_path / "study-copy.db"


@pytest.mark.parametrize(
    ("storage", "shown"),
    [("postgresql://me:secret@host/runs", "postgresql://me:***@host/runs"), ("journal", "journal")],
)
def test_what_several_machines_share_needs_a_folders_name(
    monkeypatch: pytest.MonkeyPatch, storage: str, shown: str
) -> None:
    monkeypatch.setattr("sys.argv", ["tune", *QUIET, LR, f"storage={storage}"])
    with pytest.raises(UserError, match=re.escape(f"storage={shown} needs folder=DIR too")):
        tune()


def found(folder: Path, trials: int = 3, grace: float = 60) -> tuple[JournalHome, optuna.Study]:
    """Begin a search in a journal."""
    home = JournalHome(folder, grace)
    found_study(home, Search([*QUIET, LR], trials, "none", 0, 1, str(folder)))
    return home, open_study(home)


def test_a_journal_is_begun_once_and_read_without_unpickling(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home, study = found(tmp_path)
    found_study(home, Search([LR], 99, "none", 0, 1, "/"))  # as another machine does that is a little later
    assert read_search(study).trials == 3
    study.tell(study.ask({"lr": FloatDistribution(0, 1)}), 0.5)
    for name in ("loads", "load", "Unpickler"):
        monkeypatch.setattr(f"pickle.{name}", None)
    (trial,) = open_study(JournalHome(tmp_path, 60)).get_trials()
    assert (trial.value, [*trial.params]) == (0.5, ["lr"])
    for line in home.path.read_text().splitlines():
        json.loads(line)


def test_a_line_that_was_cut_is_taken_off_and_nonsense_is_one_message(tmp_path: Path) -> None:
    home, study = found(tmp_path)
    whole = home.path.read_bytes()
    with home.path.open("ab") as file:
        file.write(b'{"op_code":4,"worker_id":"')  # a process that was killed while it wrote
    study.tell(study.ask({"lr": FloatDistribution(0, 1)}), 0.5)
    assert home.path.read_bytes().startswith(whole)
    (trial,) = open_study(JournalHome(tmp_path, 60)).get_trials()
    assert trial.value == 0.5
    home.path.write_bytes(b'{"op_code":4}\n' + whole)
    with pytest.raises(UserError, match=r"study\.journal can't be used as a study: "):
        open_study(JournalHome(tmp_path, 60))


def test_a_trial_goes_to_another_process_only_when_its_sign_stays_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home, study = found(tmp_path, trials=2)
    now = 1000.0
    monkeypatch.setattr(home_module, "monotonic", lambda: now)
    with ExitStack() as others:
        first = claim(study, home, gone := ExitStack())
        assert first is not None
        assert claim(study, home, others) is not None
        assert claim(study, home, others) is None
        now += 59
        first[0].set_user_attr("beat", 1)
        assert claim(study, home, others) is None
        now += 59
        assert claim(study, home, others) is None
        now += 2
        assert claim(study, home, others) is None  # the lock of its folder still tells that it is there
        gone.close()
        again = claim(study, home, others)
        assert again is not None
        assert (again[1], again[0].params) == (0, first[0].params)
    assert [trial.state.name for trial in study.get_trials()] == ["FAIL", "RUNNING", "RUNNING"]
    assert sorted(latest_trials(study)) == [0, 1]


def test_signs_are_given_until_the_end_or_until_the_trial_is_given_away(tmp_path: Path) -> None:
    home, study = found(tmp_path, grace=0.04)
    with ExitStack() as stack:
        claimed = claim(study, home, stack)
        assert claimed is not None
        trial = claimed[0]
        other = open_study(home)
        with alive(home, trial):
            while "beat" not in other.get_trials()[0].user_attrs:
                pass
            give_back(other, other.get_trials()[0])
        assert [found.state.name for found in other.get_trials()] == ["FAIL", "WAITING"]
        with pytest.raises(optuna.exceptions.UpdateFinishedTrialError):
            trial.report(0.5, 1)


def test_results_of_other_machines_are_written_down_once(tmp_path: Path) -> None:
    home, study = found(tmp_path)
    summaries = [{"status": "completed", "val_accuracy": number / 10} for number in range(3)]
    for number, summary in enumerate(summaries):
        trial = study.ask({"lr": FloatDistribution(0, 1)})
        trial.set_user_attr("run", number)
        trial.set_user_attr(SUMMARY, summary)
        study.tell(trial, number / 10)
    (tmp_path / "1").mkdir()
    write_json(tmp_path / "1" / "summary.json", own := summaries[1] | {"test_accuracy": 0.5})
    with locked(tmp_path / "2"):
        fetch_results(study, home)
    assert read_summary(tmp_path / "0") == summaries[0]
    assert read_summary(tmp_path / "1") == own
    assert not (tmp_path / "2" / "summary.json").exists()
    assert not lost_runs(study, home)
    assert reported_by_other(study, home) is None
    assert "process" in str(reported_by_other(study, home))
    study.tell(trial := study.ask(), 0.5)
    study.enqueue_trial(trial.params, user_attrs={"run": 3})
    study.tell(study.ask(), 0.5)
    assert reported_by_other(study, home) is None  # there is something new to report


def test_machines_join_by_the_same_command_and_take_over_what_one_of_them_left(
    tmp_path: Path, start: Start, command: Command
) -> None:
    words = [
        *QUIET, *SLOW, "model.seconds=0.1", "data.val_size=20", "epochs=2", LR, "trials=5",
        "storage=journal", "grace=2", "folder=one",
    ]  # fmt: skip
    first = start(*words, program=TUNE)
    first.wait_for("Trial 0 starts")
    second = start(*words, program=TUNE)
    second.wait_for(r"Trial \d starts")
    lost = first.kill_in_a_trial(tmp_path / "one")
    assert second.end() == 0, second.text
    assert "All 5 trials of one are done" in second.output
    study = open_study(JournalHome(tmp_path / "one", 2))
    latest = latest_trials(study)
    assert {number: trial.state.name for number, trial in latest.items()} == dict.fromkeys(range(5), "COMPLETE")
    (failed,) = [trial for trial in study.get_trials() if trial.state.name == "FAIL"]
    assert (failed.user_attrs["run"], failed.params) == (lost, latest[lost].params)
    assert len(study.get_trials()) == 6
    report = (tmp_path / "one" / "report.md").read_text()
    assert report.count("1 completed") == 5
    assert "(history.png)" in report
    again = command("folder=one", SLOW[0], program=TUNE)
    assert again.returncode == 0, again
    assert "The report was made by process" in again.stdout
    other = command(*words, "optimizer=adam,sgd", program=TUNE)
    assert "optimizer=adam,sgd would change it" in other.stderr
