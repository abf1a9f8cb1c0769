"""One run from its configuration: have everything built, train, test, and write down what happened."""

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from time import perf_counter
from typing import Any

from omegaconf import DictConfig
from torch import nn

from cifar.base import signals
from cifar.base.errors import DivergedError, UserError, describe_end
from cifar.base.locks import Held
from cifar.base.nested import flatten
from cifar.base.paths import shown
from cifar.base.run_folder import git_commit, library_versions, score, write_json
from cifar.data.extra_sets.extra_set import ExtraSet
from cifar.data.loader import Loader
from cifar.experiment.after import Keep, PageMaker, no_page
from cifar.experiment.beside.extra_sets import build_extra, results_on
from cifar.experiment.building import Parts, build_parts, create
from cifar.experiment.config import AUTO, check, config_hash, point_hash, resolve
from cifar.experiment.keeper import Keeper, look_around
from cifar.experiment.loaders import Loaders, build_loaders
from cifar.experiment.stored.ancestry import content_hash
from cifar.experiment.stored.formats import FORMAT_VERSION, unreadable
from cifar.experiment.typed.command_line import continued
from cifar.tracking.answers import answers_of, write_predictions
from cifar.tracking.predictions import Predictions
from cifar.tracking.tracking import Guard, RunInfo
from cifar.training.distributed import Ranks
from cifar.training.evaluating.evaluation import Evaluation
from cifar.training.state import take_state
from cifar.training.steps.kept import keep
from cifar.training.trainer import Trainer
from cifar.training.warm_up import warm_up

log = logging.getLogger(__name__)


def run(
    cfg: DictConfig,
    folder: Path,
    name: str = "run",
    group: str | None = None,
    checkpoint: dict[str, Any] | None = None,
    origin: dict[str, Any] | None = None,
    after_validation: Callable[[int, float], None] = lambda epoch, accuracy: None,
    make_page: PageMaker = no_page,
) -> float:
    """Train and test what `cfg` describes, leave everything in `folder`, and return the accuracy to choose by.

    That is the validation accuracy, or the test accuracy if there is no split. With the content of a `checkpoint` the
    run goes on from there. `name` and `group` are for the dashboard; `origin`, how the command line described the run,
    goes into summary.json. `after_validation` gets the number of epochs done and the validation accuracy after every
    epoch; what it raises ends the run. `make_page` makes the run's page when all else is written. Raises `UserError`
    for a mistake in the configuration, `DivergedError` after testing the last state. summary.json tells how the run
    ended, or "running".
    """
    identity: dict[str, Any] = {"name": name, "group": group, "origin": origin or {}}
    if checkpoint is not None:
        identity = identity_of(cfg, checkpoint["run"], origin)
    kept_bytes = 0 if checkpoint is None else int(checkpoint["metrics"]["size"])
    is_resumed = checkpoint is not None
    info = RunInfo(config=resolve(cfg), is_resumed=is_resumed, folder=folder, kept_bytes=kept_bytes, **identity)
    summary = first_facts(cfg, info, checkpoint)
    make_page = make_page if cfg.get("page") else no_page
    with make_page(folder) as keep_for_page, end_written(folder, summary, is_resumed):
        check(cfg)
        train_and_test(cfg, folder, info, summary, checkpoint, after_validation, keep_for_page)
    return score(summary)


def first_facts(cfg: DictConfig, info: RunInfo, checkpoint: dict[str, Any] | None) -> dict[str, Any]:
    """Return what summary.json says of a run before anything is built."""
    init_hash = content_hash(cfg.init_from) if checkpoint is None else checkpoint["init_hash"]
    return {
        "format_version": FORMAT_VERSION,
        "status": None,
        **info.origin,
        "config_hash": config_hash(info.config, init_hash),
        "point": point_hash(cfg, init_hash),
        "config": info.config,
        "init_hash": init_hash,
    }


@contextmanager
def end_written(folder: Path, summary: dict[str, Any], is_resumed: bool) -> Iterator[None]:
    """Write to summary.json, with the facts that are known by then, how the block ended."""
    lock = Held(folder)
    try:
        yield
        write_json(folder / "summary.json", summary | {"status": "completed"})
    except BaseException as error:
        has_begun = not is_resumed or summary["status"] is not None  # else the old summary is true
        if has_begun and lock.is_same():  # else the folder may be another run's by now
            try:
                write_json(folder / "summary.json", summary | describe_end(error))
            except OSError as trouble:
                log.warning(f"{folder / 'summary.json'} can't be written: {trouble.strerror}.")
        raise


def identity_of(cfg: DictConfig, stored: dict[str, Any], origin: dict[str, Any] | None) -> dict[str, Any]:
    """Return what a run that goes on is for the dashboard, and how a command would describe it now."""
    if origin is None:
        origin = stored["origin"]
    elif cfg.resume != AUTO:  # else all of the run was typed again
        origin = continued(stored["origin"], origin)
    return {"name": stored["name"], "group": stored["group"], "id": stored["id"], "origin": origin}


def train_and_test(
    cfg: DictConfig,
    folder: Path,
    info: RunInfo,
    summary: dict[str, Any],
    checkpoint: dict[str, Any] | None,
    after_validation: Callable[[int, float], None],
    keep_for_page: Keep,
) -> None:
    """Do the work of `run`, filling `summary` as facts become known."""
    start, ranks = perf_counter(), Ranks.current()
    ranks.told((info.config, checkpoint))  # to followers.py
    parts = build_parts(cfg, info)
    device = parts.device.describe() + (f", {ranks.count} processes" if ranks.are_several else "")
    software = {"git_commit": git_commit(), "versions": library_versions(), "device": device}
    facts = {
        "init_hash": summary["init_hash"],
        "ancestry": parts.ancestry if checkpoint is None else checkpoint["ancestry"],
        "software": software,
    }
    summary |= {"seed": cfg.seed, "ancestry": facts["ancestry"], **software, **parts.facts()}
    loaders = build_loaders(cfg, parts)
    if not info.is_resumed and cfg.init_from is None:
        fit_to_images(parts.model, loaders.train)
    facts |= {
        "class_names": loaders.class_names,
        "image_size": [*loaders.test.images.shape[2:]],
        "normalisation": loaders.normalisation,
    }
    if None in (cfg.data.mean, cfg.data.std):
        summary["normalisation"] = loaders.normalisation
    extra = build_extra(cfg.test_on, loaders.class_names, facts["image_size"])
    log_start(cfg, loaders, summary["num_parameters"], device, summary.get("model_changes", []))
    with Guard(parts.tracker) as tracker:
        parts = replace(parts, tracker=tracker)
        trainer = build_trainer(cfg, parts, loaders, folder, facts, checkpoint, after_validation)
        summary |= {
            "status": "running",
            "times_resumed": 0 if checkpoint is None else checkpoint["times_resumed"] + 1,
            "setup_seconds": perf_counter() - start,
        }
        write_json(folder / "summary.json", summary)
        with signals.deferred(lambda: write_json(folder / "summary.json", summary | {"status": "interrupted"})):
            diverged, test = fit_and_test(trainer, loaders, cfg.tta, extra, summary)
        summary |= test.facts()
        predictions = predictions_of(test, loaders)
        keep_predictions(folder, predictions)
        keep_for_page(predictions)
        tracker.log_predictions(predictions)
        tracker.summarise(summary | {"status": "diverged" if diverged else "completed"})
        log.info(f"Results: {shown(folder)}")
        keep(parts.train_step, parts.step_key)
        if diverged is not None:
            raise diverged


def fit_to_images(model: nn.Module, loader: Loader) -> None:
    """Let a model whose first weights depend on the images see some, normalised and not augmented."""
    fit_to = getattr(model, "fit_to", None)
    if fit_to is not None:
        fit_to(loader.first_inputs())


def log_start(cfg: DictConfig, loaders: Loaders, num_parameters: int, device: str, changes: Sequence[str]) -> None:
    """Say what is trained, on what, with how many images."""
    num_train, num_val = len(loaders.train.labels), len(loaders.val.labels) if loaders.val else 0
    log.info(
        f"{cfg.model._target_.rpartition('.')[2]} with {num_parameters:,} parameters on "
        f"{device}; {num_train:,} training, {num_val:,} validation and "
        f"{len(loaders.test.labels):,} test images"
    )
    if changes:
        log.info(f"The model was fitted to small images: {'; '.join(changes)}")


def prepare(trainer: Trainer, test_loader: Loader, tta: str) -> dict[str, float]:
    """Have the device prepared for the run, and return for the summary how long that took, if it took any time."""
    trainer.ranks.take_leaders([*trainer.model.parameters(), *trainer.model.buffers()])
    seconds = warm_up(trainer, test_loader, tta)
    if look_around(trainer.ranks)[0]:
        signals.check()
    return {"warmup_seconds": seconds} if seconds else {}


def predictions_of(test: Evaluation, loaders: Loaders) -> Predictions:
    """Return what dashboards show of the test images."""
    images, labels = loaders.test.images.cpu(), loaders.test.labels.cpu()
    found = (test.predictions, test.confidences, test.losses, test.briers)
    return Predictions(images, labels, *found, loaders.class_names)


def keep_predictions(folder: Path, predictions: Predictions) -> None:
    """Write predictions.npz; a failure costs a warning, because the results are more."""
    try:
        write_predictions(folder, answers_of(predictions))
    except OSError as error:
        log.warning(f"The predictions can't be written to {folder}: {error.strerror or error}.")


def fit_and_test(
    trainer: Trainer, loaders: Loaders, tta: str, extra: dict[str, ExtraSet], summary: dict[str, Any]
) -> tuple[DivergedError | None, Evaluation]:
    """Train and test, then on `extra` sets too; whatever happens, the `summary` tells how far it came.

    Returns the error too if the run diverged, because the accuracy of its last state is a result as well.
    """
    diverged = None
    try:
        summary |= prepare(trainer, loaders.test, tta)
        try:
            trainer.fit()
        except DivergedError as error:
            diverged = error
        test = trainer.test(loaders.test, tta)
        if extra:
            summary["test_on"] = results_on(trainer, loaders, extra)
        return diverged or trainer.watch.verdict(test.loss, trainer.counters.step), test
    finally:
        summary |= trainer.progress()


def log_report(tracker: DictConfig, info: RunInfo, folder: Path) -> None:
    """Record the report in a sweep's folder with the tracker of the configuration; a failure is only warned of.

    `info` has the sweep's group and job_type "report".
    """
    try:
        with Guard(create(tracker, info)) as guard:
            guard.log_report(folder)
    except UserError as error:  # the sweep's results are safe
        log.warning(f"The report is not on the dashboard. {error}")


def new_trainer(cfg: DictConfig, parts: Parts, loaders: Loaders) -> Trainer:
    """Build a trainer that writes nothing down."""
    return Trainer(
        parts.train_step,
        parts.schedule,
        loaders.train,
        loaders.val,
        epochs=cfg.epochs,
        log_every=cfg.log_every,
        average=parts.average,
        keep_best=cfg.keep_best,
    )


def build_trainer(
    cfg: DictConfig,
    parts: Parts,
    loaders: Loaders,
    folder: Path,
    facts: dict[str, Any],
    checkpoint: dict[str, Any] | None = None,
    after_validation: Callable[[int, float], None] = lambda epoch, accuracy: None,
) -> Trainer:
    """Build the trainer, which goes on from the content of `checkpoint` if it is given.

    It logs to metrics.jsonl and the open tracker and saves checkpoint.pt, with the `facts`, when that is due.
    """
    trainer = new_trainer(cfg, parts, loaders)
    if checkpoint is not None:
        go_on_from(checkpoint, trainer, f"The checkpoint in {folder}")
        log.info(f"Resumed at step {trainer.counters.step} of {trainer.epochs * len(loaders.train)}")
        warn_of_other_software(checkpoint["software"], facts["software"])
    Keeper(cfg, folder, parts.tracker, facts, checkpoint, after_validation).follow(trainer)
    return trainer


def go_on_from(checkpoint: dict[str, Any], trainer: Trainer, origin: str) -> None:
    """Load the state of a checkpoint; raise `UserError` if it, from `origin`, fits another model or program."""
    try:
        take_state(trainer, checkpoint, origin)
    except UserError:
        raise
    except (AttributeError, LookupError, TypeError, ValueError, RuntimeError) as error:
        raise unreadable(origin, error) from error


def warn_of_other_software(before: dict[str, Any], now: dict[str, Any]) -> None:
    """Warn if the run was begun with other code, libraries or hardware: its last bits may then differ."""
    old, new = flatten(before), flatten(now)
    if changes := [f"{key} {old.get(key)} → {new[key]}" for key in new if old.get(key) != new[key]]:
        log.warning(f"Not all is as it was when the run was saved, so the last bits may differ: {', '.join(changes)}")
