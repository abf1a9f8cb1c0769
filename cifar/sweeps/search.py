"""The trials of a search: runs in folders of their own, made by one process or by several side by side.

Each process claims the next trial of the study, runs it and tells the study. Nothing here imports torch before a trial
runs.
"""

import json
import logging
import multiprocessing
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from time import perf_counter, sleep, time
from typing import TYPE_CHECKING, Any

from omegaconf import OmegaConf

from cifar.base import signals
from cifar.base.errors import DivergedError, PrunedError, UserError
from cifar.base.in_place import run_log
from cifar.base.run_folder import holds_run, put_aside, read_summary, score
from cifar.base.shares import take_share
from cifar.experiment.after import PageMaker, no_page
from cifar.experiment.config import config_hash, resolve
from cifar.experiment.restore import AUTO, finished, restore_or_begin_anew
from cifar.experiment.typed.compose import compose_words
from cifar.experiment.typed.search_path import as_flags, others_of
from cifar.sweeps.home import Home
from cifar.sweeps.plan import num_over, progress, result_text, statuses, time_text
from cifar.sweeps.ranges import label, refuse_others, split_ranges, to_words
from cifar.sweeps.signs import alive
from cifar.sweeps.study import (
    SUMMARY,
    claim,
    explained,
    fetch_results,
    give_back,
    latest_trials,
    num_at_work,
    open_study,
    read_search,
    retry_failed,
)

if TYPE_CHECKING:
    from optuna import Study, Trial
    from optuna.trial import FrozenTrial

log = logging.getLogger(__name__)

LOOK_SECONDS = 2  # between two looks at what other processes do


def work(home: Home, started_at: float, num_before: int, make_page: PageMaker = no_page) -> None:
    """Run trials until all are claimed; raise what ended a trial if none has had a result yet.

    On a home that is shared that means until all are over: those of a machine that goes are taken over.
    """
    study, tried, has_said = open_study(home), set[int](), False
    while True:
        signals.check()
        with ExitStack() as stack, explained(home):
            claimed = claim(study, home, stack, tried)
            fetch_results(study, home)
            if claimed is None:
                if not home.is_shared or not num_at_work(study):
                    return
                if not has_said:
                    log.info(
                        "No trial is left to begin. Waiting for those in other processes; Ctrl-C leaves them to it."
                    )
                has_said = True
                sleep(LOOK_SECONDS)
                continue
            trial, number = claimed
            tried.add(number)
            with run_log(home.folder / str(number)), alive(home, trial), given_back_when_cut(study, trial, home):
                run_trial(study, trial, home, number, make_page)
            total = read_search(study).trials
        log.info(progress(total, statuses(home.folder), time() - started_at, num_before, "trials"))


@contextmanager
def given_back_when_cut(study: "Study", trial: "Trial | FrozenTrial", home: Home) -> Iterator[None]:
    """Let other machines have the trial at once when a signal or a fault ends this process."""
    from optuna.exceptions import UpdateFinishedTrialError

    try:
        yield
    except UpdateFinishedTrialError:
        number = trial.user_attrs.get("run")
        log.warning(f"Trial {number} was given to another process, because nothing was heard of this one for too long.")
    except BaseException:
        if home.is_shared:
            with suppress(Exception):  # the first error counts
                give_back(study, trial)
        raise


def run_trial(
    study: "Study", trial: "Trial | FrozenTrial", home: Home, number: int, make_page: PageMaker = no_page
) -> None:
    """Run one trial in its folder and tell the study what came of it, if it does not know yet."""
    from optuna.exceptions import UpdateFinishedTrialError
    from optuna.trial import Trial, TrialState

    folder = home.folder / str(number)

    def tell(value: float | None = None, state: TrialState | None = None) -> None:
        if isinstance(trial, Trial):
            if home.is_shared and state != TrialState.FAIL:
                trial.set_user_attr(SUMMARY, read_summary(folder))
            study.tell(trial, value, state, skip_if_finished=home.is_shared)

    title, start = f"Trial {number} ({label(trial.params)})", perf_counter()
    again = "" if isinstance(trial, Trial) else " again, because its results were lost"
    log.info(f"Trial {number} starts{again}: {label(trial.params)}")
    try:
        accuracy = train(study, trial, folder, number, make_page)
    except PrunedError as error:
        tell(state=TrialState.PRUNED)
        log.info(f"{title}: {error}")
        return
    except DivergedError as error:  # a result too: the accuracy of its last state
        log.info(f"{title}: {error}")
        accuracy = float(read_summary(folder).get("val_accuracy") or 0)
    except UpdateFinishedTrialError:
        raise
    except Exception as error:
        tell(state=TrialState.FAIL)
        if not any(other.state.is_finished() and other.values for other in latest_trials(study).values()):
            raise
        log.error(f"{title} failed: {error}", exc_info=None if isinstance(error, (UserError, OSError)) else error)
        return
    tell(accuracy)
    log.info(f"{title}: {result_text(read_summary(folder))}, {time_text(perf_counter() - start)}")


def train(
    study: "Study", trial: "Trial | FrozenTrial", folder: Path, number: int, make_page: PageMaker = no_page
) -> float:
    """Make the trial's run, or go on with it, and return its validation accuracy."""
    search = read_search(study)
    space, others = split_ranges(search.words)
    refuse_others(trial.params, space, f"Trial {number} of the search")
    words = [*others, *to_words(trial.params)]
    cfg, choices = compose_words(words)
    checkpoint = None
    if trial_is_pruned(trial) and holds_run(folder):
        put_aside(folder)  # its last checkpoint is of the epoch after which it was pruned
    if holds_run(folder):
        cfg.resume = AUTO
        if summary := over(folder, config_hash(resolve(cfg))):
            return score(summary)
        cfg, checkpoint = restore_or_begin_anew(cfg, folder, f"Trial {number}")
    if checkpoint is None:
        (folder / ".hydra").mkdir(exist_ok=True)
        OmegaConf.save(cfg, folder / ".hydra" / "config.yaml")
        OmegaConf.save(others_of(words), folder / ".hydra" / "overrides.yaml")
    from cifar.experiment.run import run  # imports torch, which takes seconds

    group = "/".join(folder.parent.parts[-2:])
    origin = {"job": number, "overrides": others_of(words), "flags": as_flags(words), "choices": choices}
    judge = make_judge(trial, cfg.epochs, reported(folder, checkpoint))
    return run(cfg, folder, label(trial.params), group, checkpoint, origin, judge, make_page)


def trial_is_pruned(trial: "Trial | FrozenTrial") -> bool:
    """Return whether the trial is one of the past that was pruned."""
    from optuna.trial import FrozenTrial, TrialState

    return isinstance(trial, FrozenTrial) and trial.state == TrialState.PRUNED


def over(folder: Path, expected_hash: str) -> dict[str, Any] | None:
    """Return the summary of a run that was over, but whose process could not tell the study; or raise as it did."""
    summary = read_summary(folder)
    if summary.get("config_hash") == expected_hash and summary.get("status") == PrunedError.status:
        raise PrunedError(summary["error"])
    return finished(folder, expected_hash)


def reported(folder: Path, checkpoint: dict[str, Any] | None) -> dict[int, float]:
    """Return epoch → validation accuracy of the epochs before the checkpoint."""
    if checkpoint is None:
        return {}
    lines = (folder / "metrics.jsonl").read_bytes()[: checkpoint["metrics"]["size"]].splitlines()
    entries = [json.loads(line) for line in lines]
    return {entry["epoch"]: entry["val/accuracy"] for entry in entries if "val/accuracy" in entry}


def make_judge(trial: "Trial | FrozenTrial", epochs: int, earlier: dict[int, float]) -> Callable[[int, float], None]:
    """Return what is called after each validation with the epoch (from 1) and the accuracy: it reports and may prune.

    `earlier` is what a run that goes on has reported to a trial that was closed. A trial of the past ends as it did.
    """
    from optuna.trial import FrozenTrial

    is_past = isinstance(trial, FrozenTrial)
    for epoch, accuracy in ({} if is_past else earlier).items():
        trial.report(accuracy, epoch)

    def should_prune(epoch: int) -> bool:
        if isinstance(trial, FrozenTrial):
            return trial_is_pruned(trial) and epoch == trial.last_step
        return trial.should_prune()

    def judge(epoch: int, accuracy: float) -> None:
        if epoch not in earlier and not is_past:
            trial.report(accuracy, epoch)
        if epoch < epochs and should_prune(epoch):
            text = f"{100 * accuracy:.2f} % on the validation images promises less than other trials"
            raise PrunedError(f"pruned after epoch {epoch} of {epochs}: {text}")

    return judge


def log_to_console(is_alone: bool) -> None:
    """Show what is logged; of processes side by side only how their trials start and end."""
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(logging.Formatter("%(message)s"))
    if not is_alone:
        handler.addFilter(lambda record: record.name == __name__ or record.levelno >= logging.WARNING)
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
    logging.getLogger("optuna").handlers.clear()
    logging.raiseExceptions = False  # a full disk is reported once, not by every line of run.log


def work_beside(home: Home, started_at: float, num_before: int, jobs: int, make_page: PageMaker) -> None:
    """Work in a process of its own, one of as many as there are jobs side by side."""
    signals.install()
    log_to_console(is_alone=False)
    take_share(home.places, jobs)
    try:
        work(home, started_at, num_before, make_page)
    except signals.Interrupted:
        pass  # the trial's run is saved, and the process that started this one says so
    except UserError as error:
        sys.exit(str(error))


def run_search(home: Home, jobs: int, make_page: PageMaker = no_page) -> None:
    """Run the trials that are missing, in this process or in `jobs` of them; `make_page` makes their runs' pages."""
    with explained(home):
        retry_failed(open_study(home), home)
    started_at, num_before = time(), num_over(home.folder)
    if jobs == 1:
        log_to_console(is_alone=True)
        work(home, started_at, num_before, make_page)
        return
    context = multiprocessing.get_context("spawn")  # a fork of a process with threads may hang
    arguments = (home, started_at, num_before, jobs, make_page)
    workers = [context.Process(target=work_beside, args=arguments) for _ in range(jobs)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    signals.check()
