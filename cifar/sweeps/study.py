"""What a search keeps in study.db: an Optuna study (Akiba et al. 2019, KDD) and the words it was asked with.

A trial is known by its run's number. A trial that was cut is closed, and another one with the same parameters is queued
for the folder of the same run, which goes on there.
"""

import os
import secrets
import sqlite3
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import FileLock

from cifar.base.errors import UserError
from cifar.base.locks import is_locked, locked
from cifar.base.run_folder import read_summary
from cifar.sweeps.plan import OVER
from cifar.sweeps.ranges import Parameter, split_ranges

if TYPE_CHECKING:
    from optuna import Study, Trial
    from optuna.pruners import BasePruner
    from optuna.storages import RDBStorage
    from optuna.trial import FrozenTrial

STUDY, CLAIM_LOCK = "study.db", ".claim.lock"
NAME = "search"  # of the study within its file
PRUNERS = ("median", "hyperband", "none")
WAIT_SECONDS = 60  # for other processes that write to the database


@dataclass(frozen=True)
class Search:
    """What is looked for: `words` are overrides of run.py's configuration, with ranges among them.

    `trials` is how many runs there shall be, `max_epochs` the length of the longest, `cwd` the folder from which the
    search was begun and to which paths among the words refer.
    """

    words: list[str]
    trials: int
    pruner: str
    sampler_seed: int
    max_epochs: int
    cwd: str


def storage_in(path: Path, journal: str = "DELETE") -> "RDBStorage":
    """Return Optuna's storage in a file of SQLite's, with SQLite's journal mode.

    The file is named to SQLite itself, because a URL would read a path with ? or % otherwise.
    """
    import optuna

    def connect() -> sqlite3.Connection:
        connection = sqlite3.connect(path, timeout=WAIT_SECONDS, check_same_thread=False)
        connection.execute(f"PRAGMA journal_mode={journal}")
        return connection

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna.storages.RDBStorage("sqlite:///study.db", engine_kwargs={"creator": connect})


@contextmanager
def explained(folder: Path) -> Iterator[None]:
    """Raise `UserError` with one message if the study in the folder can't be read or written."""
    from optuna.exceptions import OptunaError
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except (OptunaError, SQLAlchemyError, sqlite3.Error) as error:
        cause: BaseException = error
        while cause.__cause__ is not None:
            cause = cause.__cause__
        reason = str(cause).splitlines()[0].rstrip(".")
        raise UserError(
            f"{folder / STUDY} can't be used as a study: {reason}. When that is mended, the same command goes on."
        ) from error


def found_study(folder: Path, search: Search) -> None:
    """Write study.db, which is there whole or not at all, however the process ends."""
    import optuna

    temporary = folder / f".{STUDY}.{secrets.token_hex(4)}.tmp"
    try:
        with explained(folder):
            storage = storage_in(temporary, journal="MEMORY")  # no second file that could be left behind
            study = optuna.create_study(storage=storage, study_name=NAME, direction="maximize")
            for name, value in asdict(search).items():
                study.set_user_attr(name, value)
            storage.engine.dispose()
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(folder / STUDY)
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def open_study(folder: Path) -> "Study":
    """Return the study in the folder; raise `UserError` if it can't be read or is not a whole search's."""
    import optuna

    with explained(folder):
        study = optuna.load_study(storage=storage_in(folder / STUDY), study_name=NAME)
        attributes = study.user_attrs
    if missing := [field.name for field in fields(Search) if field.name not in attributes]:
        raise UserError(
            f"{folder / STUDY} is not a whole search: it lacks {', '.join(missing)}. Remove the file if no trial "
            "has run, and give the whole command again."
        )
    return study


def lengthen(study: "Study", search: Search) -> None:
    """Store how many runs there shall be, which alone may change."""
    if study.user_attrs["trials"] != search.trials:
        study.set_user_attr("trials", search.trials)


def read_search(study: "Study") -> Search:
    """Return what the study looks for."""
    attributes = study.user_attrs
    return Search(**{field.name: attributes[field.name] for field in fields(Search)})


def latest_trials(study: "Study") -> "dict[int, FrozenTrial]":
    """Return every run's number and the trial that stands for it: the last, if earlier ones were closed."""
    trials = study.get_trials(deepcopy=False)
    return {int(trial.user_attrs["run"]): trial for trial in trials if "run" in trial.user_attrs}


def lost_runs(study: "Study", folder: Path) -> "list[tuple[int, FrozenTrial]]":
    """Return the runs that the study knows the end of, but not their folders: a summary was damaged or deleted."""
    return [
        (number, trial)
        for number, trial in latest_trials(study).items()
        if trial.state.name in ("COMPLETE", "PRUNED") and read_summary(folder / str(number)).get("status") not in OVER
    ]


def num_claimed(study: "Study") -> int:
    """Return how many runs have a result, failed for good or are at work."""
    from optuna.trial import TrialState

    return sum(trial.state != TrialState.WAITING for trial in latest_trials(study).values())


def retry_failed(study: "Study") -> None:
    """Let the runs that failed be tried again."""
    from optuna.trial import TrialState

    for number, trial in latest_trials(study).items():
        if trial.state == TrialState.FAIL:
            study.enqueue_trial(trial.params, user_attrs={"run": number})


def close_stale(study: "Study", folder: Path) -> None:
    """Close the trials whose process is gone, and queue their parameters for the same run's folder."""
    from optuna.trial import TrialState

    for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        number = trial.user_attrs.get("run")
        if number is None or not is_locked(folder / str(number)):
            study.tell(trial.number, state=TrialState.FAIL)
            if number is not None:
                study.enqueue_trial(trial.params, user_attrs={"run": number})


def make_pruner(search: Search) -> "BasePruner":
    """Return what ends trials early: the median rule (Golovin et al. 2017, KDD) or Hyperband (Li et al. 2018)."""
    from optuna import pruners

    if search.pruner == "hyperband":
        return pruners.HyperbandPruner(min_resource=1, max_resource=max(1, search.max_epochs))
    return pruners.MedianPruner() if search.pruner == "median" else pruners.NopPruner()


def claim(
    study: "Study", folder: Path, stack: ExitStack, tried: "set[int] | frozenset[int]" = frozenset()
) -> "tuple[Trial | FrozenTrial, int] | None":
    """Return the next trial and its run's number, whose folder `stack` locks; None if all trials are claimed.

    A trial of the past comes back if its run was lost and is not among those that were `tried`. The sampler is TPE
    (Bergstra et al. 2011, NeurIPS), seeded for each run alone: a search by one process makes the same trials whether it
    was cut or not.
    """
    import numpy as np
    from optuna.samplers import TPESampler

    search = read_search(study)
    space, _ = split_ranges(search.words)
    with FileLock(folder / CLAIM_LOCK):
        close_stale(study, folder)
        for number, lost in lost_runs(study, folder):
            if number not in tried and not is_locked(folder / str(number)):
                stack.enter_context(locked(folder / str(number)))
                return lost, number
        if num_claimed(study) >= search.trials:
            return None
        new_number = max(latest_trials(study), default=-1) + 1
        seeds = np.random.SeedSequence([search.sampler_seed, new_number])
        study.sampler, study.pruner = TPESampler(seed=int(seeds.generate_state(1)[0])), make_pruner(search)
        trial = study.ask(space)
        number = int(trial.user_attrs.get("run", new_number))
        trial.set_user_attr("run", number)
        stack.enter_context(locked(folder / str(number)))
    return trial, number


def best_trial(study: "Study") -> "tuple[int, dict[str, Parameter]] | None":
    """Return the best run's number and parameters by validation accuracy; None if none was completed."""
    from optuna.trial import TrialState

    done = [entry for entry in latest_trials(study).items() if entry[1].state == TrialState.COMPLETE]
    if not done:
        return None
    number, trial = max(done, key=lambda entry: entry[1].value or 0)
    return number, trial.params
