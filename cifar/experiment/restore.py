"""Continue what was cut: `cifar resume PATH` a run, `cifar resume multirun/DATE/TIME` a sweep.

A sweep is started again in its own folder, with the jobs of its plan: every job then finds out for itself whether it
is done, was cut or never began. Nothing here imports torch before there is something to resume.
"""

import logging
import re
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf

from cifar.base.errors import DivergedError, UserError
from cifar.base.paths import absolute, shown
from cifar.base.run_folder import SEAL_BYTES, SEAL_PREFIX, put_aside, read_summary, score
from cifar.experiment.config import AUTO as AUTO
from cifar.experiment.config import Config, number_changes, resolve
from cifar.experiment.stored.ancestry import content_hash
from cifar.experiment.stored.configuration import links_of, stored_config
from cifar.experiment.stored.formats import read_run
from cifar.experiment.stored.trust import as_data, own_targets, refuse_foreign
from cifar.experiment.typed.command_line import quote, typed

log = logging.getLogger(__name__)

MAY_CHANGE = "epochs, log_every, page, test_on, keep_best, tracker, checkpoint, data.root, on_nonfinite"


class LengthError(UserError):
    """The run can't have the number of epochs that is asked for."""


def place(arguments: list[str]) -> list[str]:
    """Return run.py's arguments with hydra.run.dir as `resume=PATH` among them asks; raise `UserError` if it can't be.

    Hydra makes a run's folder before the run can say where it wants to be.
    """
    words = [word for word in arguments if re.match(r"\+{0,2}resume=", word)]
    if not words:
        return arguments
    value = resume_value(words[-1])
    is_sweep = bool({"-m", "--multirun", "hydra.mode=MULTIRUN"} & {*arguments})
    if value is None or value == AUTO:  # for auto see cifar/commands/app/new_folder.py
        return arguments
    if is_sweep:
        raise UserError(f"resume={value} is for one run. To continue a sweep: cifar resume DIR")
    path = absolute(value)
    if (path / "multirun.yaml").exists():
        raise UserError(f"resume={value} is a sweep. To continue it: cifar resume {shlex.quote(value)}")
    if not path.exists():
        raise UserError(f"resume={value}: there is no such folder or checkpoint.")
    folder = path if path.is_dir() else path.parent
    is_run = (folder / "metrics.jsonl").exists() or any(folder.glob("checkpoint*.pt*"))
    if path.is_dir() and not is_run:
        raise UserError(f"resume={value}: no run has begun to train in this folder. Start it again in another one.")
    if path.is_file() and not is_sealed(path) and not (folder / "metrics.jsonl").exists():
        way_on = typed("init_from", value)
        raise UserError(f"resume={value} is not a run's checkpoint. To start from its weights: {way_on}")
    if any("hydra.run.dir=" in word for word in arguments):
        raise UserError(f"resume={value} goes on in that run's own folder: leave hydra.run.dir out.")
    others = [word for word in arguments if word not in words]
    return [*others, f"resume={quote(value)}", f"hydra.run.dir={quote(str(folder))}"]


def resume_value(word: str) -> str | None:
    """Return what stands in the override `word`: a path as it is if there is one, else what Hydra reads."""
    text = word.partition("=")[2]
    if text not in (AUTO, "null", "") and absolute(text).exists():
        return text
    try:
        (override,) = OverridesParser.create().parse_overrides([word])
    except HydraException:
        return text  # such a path needs no quotes here, if there is one
    value = override.value()
    if override.is_sweep_override() or value == "":
        raise UserError(f"{word} is not possible: it takes one run's folder, a checkpoint, or auto.")
    return None if value is None else str(value).replace("\\${", "${")  # escaped, so that it is no interpolation


def is_sealed(path: Path) -> bool:
    """Return whether the file ends as this project's checkpoints do."""
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - SEAL_BYTES))
        return file.read(len(SEAL_PREFIX)) == SEAL_PREFIX


def finished(folder: Path, config_hash: str) -> dict[str, Any] | None:
    """Return the summary of the folder's run if it is over and was one of this very configuration."""
    summary = read_summary(folder)
    is_over = summary.get("status") in ("completed", "diverged") and "test_accuracy" in summary
    return summary if is_over and summary.get("config_hash") == config_hash else None


def result_of(summary: dict[str, Any]) -> float:
    """Return what the finished run returned, or raise `DivergedError` as it did."""
    if summary["status"] == "diverged":
        facts = {key: summary.get(key) for key in ("diverged_step", "diverged_lr", "last_finite_loss")}
        raise DivergedError(summary["error"], facts)
    return score(summary)


def restore(
    cfg: DictConfig, folder: Path, given: list[str], config_folders: Sequence[Path] = ()
) -> tuple[DictConfig, dict[str, Any] | None]:
    """Return the configuration to go on with and the content of the checkpoint to go on from; None: there is none.

    With resume=PATH the configuration is the stored one with the `given` overrides, with resume=auto it is `cfg`.
    Raises `UserError` for code that neither `cfg` nor a file in the `config_folders` names, and for the first value
    that would have given other numbers so far; then nothing has changed.
    """
    from cifar.base.sealed import read_checkpoint
    from cifar.training.checkpoint import find_checkpoints, read_newest  # imports torch, which takes seconds

    path = None if cfg.resume == AUTO else absolute(cfg.resume)
    if path is not None and folder not in (path, path.parent):
        raise UserError(f"resume={cfg.resume} must stand on the command line, not in a configuration file.")
    paths = find_checkpoints(folder)
    if path is not None and path.is_file() and path not in paths:
        checkpoint: dict[str, Any] | None = read_checkpoint(path)
    else:
        checkpoint = read_newest(paths[paths.index(path) :] if path in paths else paths)
    if checkpoint is None:
        if path is None and "test_accuracy" not in read_summary(folder):
            return cfg, None
        raise UserError(
            f"resume={cfg.resume}: there is no intact checkpoint in {folder}. Start the run again in another folder."
        )
    if "config" not in checkpoint:
        way_on = typed("init_from", cfg.resume)
        raise UserError(f"resume={cfg.resume} holds weights but no run: start a new one with {way_on}")
    origin = f"resume={cfg.resume}" if path else f"The checkpoint in {shown(folder)}"
    checkpoint = read_run(checkpoint, origin)
    if path is not None:
        stored = stored_config(checkpoint["config"], links_of(checkpoint), cfg)
        allowed = own_targets(config_folders, cfg)
        cfg = with_overrides(stored, cfg, given)
        refuse_foreign(resolve(cfg), allowed, origin)
    refuse_other_numbers(cfg, checkpoint)
    return cfg, checkpoint


def restore_or_begin_anew(cfg: DictConfig, folder: Path, title: str) -> tuple[DictConfig, dict[str, Any] | None]:
    """Return what `restore` does for resume=auto; what can't be continued is put aside, with a warning."""
    try:
        return restore(cfg, folder, [])
    except LengthError:
        raise
    except UserError as error:
        aside = put_aside(folder)
        log.warning(f"{title} is begun anew; what it had is now in {shown(aside)}. {error}")
        return cfg, None


def set_newer_aside(resume: str, folder: Path) -> None:
    """Rename the checkpoints that are newer than the one that `resume` names."""
    from cifar.training.checkpoint import find_checkpoints

    paths = find_checkpoints(folder)
    if (path := absolute(resume)) in paths:
        for newer in paths[: paths.index(path)]:
            target, number = newer.with_name(f"{newer.name}.newer"), 1
            while target.exists():
                target, number = newer.with_name(f"{newer.name}.newer-{number}"), number + 1
            newer.rename(target)


def with_overrides(stored: DictConfig, composed: DictConfig, given: list[str]) -> DictConfig:
    """Return the stored configuration with the values that the `given` overrides have in the composed one."""
    cfg = OmegaConf.merge(OmegaConf.structured(Config), stored)
    assert isinstance(cfg, DictConfig)
    values = resolve(composed)
    for override in OverridesParser.create().parse_overrides(given):
        *parents, name = key = override.key_or_group.split(".")
        if override.key_or_group in ("data", "device", "checkpoint"):
            raise UserError(f"{override.input_line} can't be given beside resume: only {MAY_CHANGE}.")
        node: Any = values
        for part in key:
            if not isinstance(node, dict) or part not in node:
                raise UserError(f"{override.input_line} can't be given beside resume: only {MAY_CHANGE}.")
            node = node[part]
        OmegaConf.update(cfg, ".".join([*parents, name]), as_data(node), merge=False)
    cfg.resume = composed.resume
    return cfg


def refuse_other_numbers(cfg: DictConfig, checkpoint: dict[str, Any]) -> None:
    """Raise `UserError` for the first key whose value would have given other numbers than those so far."""
    from cifar.experiment.building import create

    content = content_hash(cfg.init_from)
    if cfg.resume == AUTO and content and checkpoint["init_hash"] not in (None, content):
        raise UserError(
            f"init_from={cfg.init_from} is not possible for the run that is resumed: the file has another content than "
            "when the run was begun."
        )
    for key, (old, new) in number_changes(checkpoint["config"], resolve(cfg)).items():
        reason, kind = "it would have given other numbers so far", UserError
        if key == "epochs":
            per_epoch, num_steps = checkpoint["steps_per_epoch"], checkpoint["counters"]["step"]
            was, is_now = (create(cfg.schedule).over(epochs * per_epoch, per_epoch) for epochs in (old, new))
            averaged, would_be = (create(cfg.average).due(epochs * per_epoch, per_epoch) for epochs in (old, new))
            has_same_rates = all(was(step) == is_now(step) for step in range(num_steps))
            has_same_average = all(averaged(step) == would_be(step) for step in range(1, num_steps + 1))
            if num_steps <= new * per_epoch and has_same_rates and has_same_average:
                continue
            kind = LengthError
            reason = f"{num_steps} steps are done" if num_steps > new * per_epoch else (
                "the schedule would have given other learning rates so far" if not has_same_rates
                else "other weights would have been averaged so far"
            )  # fmt: skip
        is_same_file = key == "init_from" and content is not None and content == checkpoint["init_hash"]
        if is_same_file or (key == "on_nonfinite" and not checkpoint["num_skipped"]):
            continue
        raise kind(
            f"{key}={new} is not possible for the run that is resumed: {reason}. It has {key}={old}. "
            f"Beside resume there may be {MAY_CHANGE}."
        )
