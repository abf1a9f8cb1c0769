"""Continue what was cut: `python run.py resume=PATH` a run, `python -m cifar.resume multirun/DATE/TIME` a sweep.

A sweep is simply started again in its own folder with resume=auto: every job then finds out for itself whether it is
done, was cut or never began. Nothing here imports torch before there is something to resume.
"""

import argparse
import os
import re
import runpy
import sys
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from cifar.config import Config, number_changes, resolve
from cifar.errors import DivergedError, UserError
from cifar.run_folder import read_summary, score, write_atomically

AUTO = "auto"
MAY_CHANGE = "epochs, log_every, tracker, checkpoint, data.root, on_nonfinite"


def place(arguments: list[str]) -> list[str]:
    """Return run.py's arguments with hydra.run.dir as `resume=PATH` among them asks; raise `UserError` if it can't be.

    Hydra makes a run's folder before the run can say where it wants to be.
    """
    words = [word for word in arguments if re.match(r"\+{0,2}resume=", word)]
    if not words:
        return arguments
    value = OverridesParser.create().parse_override(words[-1]).value()
    is_sweep = bool({"-m", "--multirun", "hydra.mode=MULTIRUN"} & {*arguments})
    if value is None or (is_sweep and value == AUTO):
        return arguments
    if is_sweep:
        raise UserError(f"resume={value} is for one run. To continue a sweep: python -m cifar.resume DIR")
    has_folder = any("hydra.run.dir=" in word for word in arguments)
    if value == AUTO:
        if not has_folder:
            raise UserError("resume=auto needs a folder that is the same every time: add hydra.run.dir=outputs/NAME.")
        return arguments
    path = Path(str(value)).expanduser().absolute()
    if (path / "multirun.yaml").exists():
        raise UserError(f"resume={value} is a sweep. To continue it: python -m cifar.resume {value}")
    if not path.exists():
        raise UserError(f"resume={value}: there is no such folder or checkpoint.")
    if has_folder:
        raise UserError(f"resume={value} goes on in that run's own folder: leave hydra.run.dir out.")
    return [*arguments, f"hydra.run.dir={quote(path if path.is_dir() else path.parent)}"]


def quote(path: Path) -> str:
    """Return the path as Hydra's command line takes it, whatever characters it has."""
    return "'" + str(path).replace("\\", "\\\\").replace("'", "\\'") + "'"


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


def restore(cfg: DictConfig, folder: Path, given: list[str]) -> tuple[DictConfig, dict[str, Any] | None]:
    """Return the configuration to go on with and the content of the checkpoint to go on from; None: there is none.

    With resume=PATH the configuration is the stored one with the `given` overrides, with resume=auto it is `cfg`.
    Raises `UserError` for the first value that would have given other numbers so far; then nothing has changed.
    """
    from cifar.checkpoint import find_checkpoints, read_newest  # imports torch, which takes seconds

    path = None if cfg.resume == AUTO else Path(cfg.resume).expanduser().absolute()
    if path is not None and folder not in (path, path.parent):
        raise UserError(f"resume={cfg.resume} must stand on the command line, not in a configuration file.")
    paths = find_checkpoints(folder)
    newer = paths[: paths.index(path)] if path in paths else []
    if path is not None and path.is_file():
        paths = paths[len(newer) :] if path in paths else [path]
    checkpoint = read_newest(paths)
    if checkpoint is None:
        if path is None and "test_accuracy" not in read_summary(folder):
            return cfg, None
        raise UserError(
            f"resume={cfg.resume}: there is no intact checkpoint in {folder}. Start the run again in another folder."
        )
    if "config_source" not in checkpoint:
        raise UserError(f"resume={cfg.resume} holds weights but no run: start a new one with init_from={cfg.resume}.")
    if path is not None:
        cfg = with_overrides(OmegaConf.create(checkpoint["config_source"]), cfg, given)
    refuse_other_numbers(cfg, checkpoint)
    for other in newer:
        other.replace(other.with_name(f"{other.name}.newer"))
    return cfg, checkpoint


def with_overrides(stored: DictConfig, composed: DictConfig, given: list[str]) -> DictConfig:
    """Return the stored configuration with the values that the `given` overrides have in the composed one."""
    cfg = OmegaConf.merge(OmegaConf.structured(Config), stored)
    assert isinstance(cfg, DictConfig)
    values = resolve(composed)
    for override in OverridesParser.create().parse_overrides(given):
        *parents, name = key = override.key_or_group.split(".")
        node: Any = values
        for part in key:
            if not isinstance(node, dict) or part not in node:
                raise UserError(f"{override.input_line} can't be given beside resume: only {MAY_CHANGE}.")
            node = node[part]
        OmegaConf.update(cfg, ".".join([*parents, name]), node, merge=False)
    cfg.resume = composed.resume
    return cfg


def refuse_other_numbers(cfg: DictConfig, checkpoint: dict[str, Any]) -> None:
    """Raise `UserError` for the first key whose value would have given other numbers than those so far."""
    from cifar.experiment import create

    for key, (old, new) in number_changes(checkpoint["config"], resolve(cfg)).items():
        reason = "it would have given other numbers so far"
        if key == "epochs":
            per_epoch, num_steps = checkpoint["steps_per_epoch"], checkpoint["step"]
            was, is_now = (create(cfg.schedule).over(epochs * per_epoch, per_epoch) for epochs in (old, new))
            if num_steps <= new * per_epoch and all(was(step) == is_now(step) for step in range(num_steps)):
                continue
            reason = f"{num_steps} steps are done" if num_steps > new * per_epoch else (
                "the schedule would have given other learning rates so far"
            )  # fmt: skip
        elif key == "on_nonfinite" and not checkpoint["num_skipped"]:
            continue
        raise UserError(
            f"{key}={new} is not possible for the run that is resumed: {reason}. It has {key}={old}. "
            f"Beside resume there may be {MAY_CHANGE}."
        )


def main() -> None:
    """Start the sweep again."""
    parser = argparse.ArgumentParser(
        prog="python -m cifar.resume", description="Continue a sweep: what is done is skipped, the rest is run."
    )
    parser.add_argument("folder", type=Path, metavar="multirun/DATE/TIME")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help=f"values that may change: {MAY_CHANGE}, …")
    options = parser.parse_args()
    try:
        arguments, cwd = sweep_arguments(options.folder.absolute(), options.overrides)
    except UserError as error:
        sys.exit(str(error))
    run_py = Path(__file__).resolve().parent.parent / "run.py"
    folder = options.folder.absolute()
    num_before = len(done_jobs(folder))
    if cwd.is_dir():
        os.chdir(cwd)
    sys.path.insert(0, str(run_py.parent))
    sys.argv = [str(run_py), *arguments]
    runpy.run_path(str(run_py), run_name="__main__")
    print(f"All {len(done_jobs(folder))} jobs of {os.path.relpath(folder)} are done ({num_before} were before).")


def done_jobs(folder: Path) -> list[Path]:
    """Return the folders of the sweep's jobs that are over, be it that they diverged."""
    folders = [path.parent for path in folder.rglob("summary.json") if "replaced-" not in str(path.relative_to(folder))]
    return [job for job in folders if read_summary(job).get("status") in ("completed", "diverged")]


def sweep_arguments(folder: Path, extra: list[str]) -> tuple[list[str], Path]:
    """Return run.py's arguments that continue the sweep in `folder`, and the working directory it was started in."""
    if not folder.is_dir():
        raise UserError(f"{folder}: there is no such folder.")
    hydra = read_multirun_yaml(folder)
    parser = OverridesParser.create()
    for override in parser.parse_overrides(extra):
        if override.is_sweep_override():
            raise UserError(f"{override.input_line}: other values are another sweep, so start a new one.")
    replaced = {key_of(word) for word in extra} | {"resume", "hydra.sweep.dir"}
    kept = [word for word in [*hydra.overrides.task, *hydra.overrides.hydra] if key_of(word) not in replaced]
    flags = ["--config-name", hydra.job.config_name] if hydra.job.config_name != "config" else []
    for source in hydra.runtime.config_sources:
        if source.provider == "command-line":
            flags += ["--config-dir", source.path]
    return [*flags, "-m", *kept, *extra, "resume=auto", f"hydra.sweep.dir={quote(folder)}"], Path(hydra.runtime.cwd)


def key_of(override: str) -> str:
    """Return the key of an override such as "lr=0.1" or "+hydra/launcher=joblib"."""
    return override.lstrip("+~").partition("=")[0]


def read_multirun_yaml(folder: Path) -> DictConfig:
    """Return Hydra's own node of the sweep's multirun.yaml.

    Hydra writes the file again at every start, and not atomically: a copy is kept for the day that this is cut.
    """
    path, copy = folder / "multirun.yaml", folder / ".multirun.yaml.copy"
    for source in (path, copy):
        try:
            text = source.read_text()
            hydra: DictConfig = OmegaConf.create(text).hydra
            assert hydra.overrides.task is not None
        except (OSError, ValueError, AttributeError, AssertionError, YAMLError, OmegaConfBaseException):
            continue
        write_atomically(copy, lambda file, text=text: file.write(text.encode()))  # type: ignore[misc]
        return hydra
    raise UserError(
        f"{folder} is not a sweep's folder: it has no multirun.yaml. One run: python run.py resume={folder}"
    )


if __name__ == "__main__":
    main()
