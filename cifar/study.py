"""What a search keeps in study.db: an Optuna study (Akiba et al. 2019, KDD) and the words it was asked with.

A trial is known by its run's number. A trial that was cut is closed, and another one with the same parameters is queued
for the folder of the same run, which goes on there.
"""

from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import FileLock

from cifar.errors import UserError
from cifar.ranges import Parameter, split_ranges
from cifar.run_folder import is_locked, locked

if TYPE_CHECKING:
    from optuna import Study, Trial
    from optuna.pruners import BasePruner
    from optuna.trial import FrozenTrial

STUDY, CLAIM_LOCK = "study.db", ".claim.lock"
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


def open_study(folder: Path) -> "Study":
    """Return the study in the folder, a new one if there is none; raise `UserError` if it can't be read."""
    import optuna
    from optuna.exceptions import OptunaError
    from sqlalchemy.exc import SQLAlchemyError

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        storage = optuna.storages.RDBStorage(
            f"sqlite:///{folder / STUDY}", engine_kwargs={"connect_args": {"timeout": WAIT_SECONDS}}
        )
        return optuna.create_study(storage=storage, study_name="search", direction="maximize", load_if_exists=True)
    except (OptunaError, SQLAlchemyError) as error:
        reason = str(error.__cause__ or error).splitlines()[0]
        raise UserError(f"{folder / STUDY} can't be used as a study: {reason}") from error


def write_search(study: "Study", search: Search) -> None:
    """Store what is looked for in the study."""
    for name, value in asdict(search).items():
        study.set_user_attr(name, value)


def read_search(study: "Study") -> Search:
    """Return what the study looks for."""
    return Search(**study.user_attrs)


def latest_trials(study: "Study") -> "dict[int, FrozenTrial]":
    """Return every run's number and the trial that stands for it: the last, if earlier ones were closed."""
    trials = study.get_trials(deepcopy=False)
    return {int(trial.user_attrs["run"]): trial for trial in trials if "run" in trial.user_attrs}


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


def claim(study: "Study", folder: Path, stack: ExitStack) -> "tuple[Trial, int] | None":
    """Return the next trial and its run's number, whose folder `stack` locks; None if all trials are claimed.

    The sampler is TPE (Bergstra et al. 2011, NeurIPS), seeded for each run alone: a search by one process makes the
    same trials whether it was cut or not.
    """
    import numpy as np
    from optuna.samplers import TPESampler

    search = read_search(study)
    space, _ = split_ranges(search.words)
    with FileLock(folder / CLAIM_LOCK):
        close_stale(study, folder)
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
