"""What a search keeps at its home (home.py): an Optuna study (Akiba et al. 2019, KDD) and the words it was asked with.

A trial is known by its run's number. A trial that was cut is closed, and another one with the same parameters is queued
for the folder of the same run, which goes on there.
"""

import os
import platform
import sqlite3
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING

from cifar.base.errors import UserError
from cifar.base.locks import is_locked, locked
from cifar.base.run_folder import read_summary, write_json
from cifar.sweeps.home import Home
from cifar.sweeps.plan import OVER
from cifar.sweeps.ranges import Parameter, split_ranges

if TYPE_CHECKING:
    from optuna import Study, Trial
    from optuna.pruners import BasePruner
    from optuna.trial import FrozenTrial

ENDED = ("COMPLETE", "PRUNED")
PRUNERS = ("median", "hyperband", "none")
REPORTED = "reported"  # the study's attribute with how many trials were reported on, and by whom
SUMMARY = "summary"  # the attribute with what came of a trial, on a home that is shared


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


@contextmanager
def explained(home: Home) -> Iterator[None]:
    """Raise `UserError` with one message if the study can't be read or written."""
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
            f"{home.shown} can't be used as a study: {reason}. When that is mended, the same command goes on."
        ) from error


def found_study(home: Home, search: Search) -> None:
    """Begin the study, which is there whole or not at all, unless another machine has begun it."""
    import optuna

    with explained(home), home.founding() as storage:
        study = optuna.create_study(
            storage=storage, study_name=home.name, direction="maximize", load_if_exists=home.is_shared
        )
        if missing := missing_facts(study):  # all of them, unless a process was killed right here
            for name in missing:
                study.set_user_attr(name, asdict(search)[name])


def missing_facts(study: "Study") -> list[str]:
    """Return which facts of a search the study lacks."""
    return [field.name for field in fields(Search) if field.name not in study.user_attrs]


def open_study(home: Home) -> "Study":
    """Return the study; raise `UserError` if it can't be read or is not a whole search's."""
    import optuna

    with explained(home):
        try:
            study = optuna.load_study(storage=home.storage(), study_name=home.name)
        except KeyError as error:
            raise UserError(f"There is no search {home.shown}: it is begun by the whole command.") from error
        missing = missing_facts(study)
    if missing:
        raise UserError(
            f"{home.shown} is not a whole search: it lacks {', '.join(missing)}. Remove the file if no trial "
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


def lost_runs(study: "Study", home: Home) -> "list[tuple[int, FrozenTrial]]":
    """Return the runs that the study knows the end of, but not their folders: a summary was damaged or deleted.

    On a home that is shared the study knows what came of them.
    """
    return [
        (number, trial)
        for number, trial in latest_trials(study).items()
        if trial.state.name in ENDED and not home.is_shared and not has_result(home.folder / str(number))
    ]


def has_result(folder: Path) -> bool:
    """Return whether the folder tells how its run ended."""
    return read_summary(folder).get("status") in OVER


def fetch_results(study: "Study", home: Home) -> None:
    """Write down here what came of the runs of other machines that share no folder with this one."""
    for number, trial in latest_trials(study).items() if home.is_shared else ():
        folder, summary = home.folder / str(number), trial.user_attrs.get(SUMMARY)
        if trial.state.name not in ENDED or not isinstance(summary, dict) or has_result(folder):
            continue
        if not (folder.exists() and is_locked(folder)):
            folder.mkdir(exist_ok=True)
            write_json(folder / "summary.json", summary)


def num_claimed(study: "Study") -> int:
    """Return how many runs have a result, failed for good or are at work."""
    from optuna.trial import TrialState

    return sum(trial.state != TrialState.WAITING for trial in latest_trials(study).values())


def num_at_work(study: "Study") -> int:
    """Return how many trials are at work, in whatever process."""
    from optuna.trial import TrialState

    return len(study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)))


def retry_failed(study: "Study", home: Home) -> None:
    """Let the runs that failed be tried again."""
    from optuna.trial import TrialState

    with home.exclusive():
        for number, trial in latest_trials(study).items():
            if trial.state == TrialState.FAIL:
                study.enqueue_trial(trial.params, user_attrs={"run": number})


def close_stale(study: "Study", home: Home) -> None:
    """Close the trials whose process is gone, and queue their parameters for the same run's folder."""
    from optuna.trial import TrialState

    for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        number = trial.user_attrs.get("run")
        if home.is_gone(trial, number):
            give_back(study, trial)


def give_back(study: "Study", trial: "Trial | FrozenTrial") -> None:
    """Close a trial that was cut, and queue its parameters for the same run's folder."""
    from optuna.trial import TrialState

    number = trial.user_attrs.get("run")
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
    study: "Study", home: Home, stack: ExitStack, tried: "set[int] | frozenset[int]" = frozenset()
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
    with home.exclusive():
        close_stale(study, home)
        for number, lost in lost_runs(study, home):
            if number not in tried and not is_locked(home.folder / str(number)):
                stack.enter_context(locked(home.folder / str(number)))
                return lost, number
        if num_claimed(study) >= search.trials:
            return None
        new_number = max(latest_trials(study), default=-1) + 1
        seeds = np.random.SeedSequence([search.sampler_seed, new_number])
        study.sampler, study.pruner = TPESampler(seed=int(seeds.generate_state(1)[0])), make_pruner(search)
        trial = study.ask(space)
        number = int(trial.user_attrs.get("run", new_number))
        trial.set_user_attr("run", number)
        stack.enter_context(locked(home.folder / str(number)))
    return trial, number


def best_trial(study: "Study") -> "tuple[int, dict[str, Parameter]] | None":
    """Return the best run's number and parameters by validation accuracy; None if none was completed."""
    from optuna.trial import TrialState

    done = [entry for entry in latest_trials(study).items() if entry[1].state == TrialState.COMPLETE]
    if not done:
        return None
    number, trial = max(done, key=lambda entry: entry[1].value or 0)
    return number, trial.params


def reported_by_other(study: "Study", home: Home) -> str | None:
    """Return who reports on all trials that have ended by now, if that is another process; None: it is this one.

    On a home that is shared only the first that asks makes the report.
    """
    num_ended = sum(trial.state.is_finished() for trial in latest_trials(study).values())
    with home.exclusive():
        done, who = study.user_attrs.get(REPORTED, (0, ""))
        if home.is_shared and done == num_ended:
            return str(who)
        if home.is_shared:
            study.set_user_attr(REPORTED, (num_ended, f"process {os.getpid()} on {platform.node()} in {home.folder}"))
    return None
