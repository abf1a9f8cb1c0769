"""What a sweep consists of: its jobs, the keys that differ between them, and how far it is.

`sweep.json` is written whenever a sweep starts, so that a job, the console and the report know of the jobs to come.
"""

import json
import re
import shlex
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from time import time
from typing import Any

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from cifar.errors import UserError
from cifar.run_folder import read_summary, write_atomically, write_json

PLAN = "sweep.json"
OVER = ("completed", "diverged", "pruned")  # the statuses of runs that have a result


@dataclass(frozen=True)
class Plan:
    """The swept keys, in the command's order, every job's overrides by its number, and when the sweep (re)started."""

    swept: list[str]
    jobs: list[list[str]]
    started_at: float  # seconds since 1970
    num_done_before: int

    def label(self, number: int) -> str:
        """Return what makes the job differ from the others, such as "lr=0.01 seed=3"."""
        pairs = (override.lstrip("+").partition("=") for override in self.jobs[number])
        return " ".join(f"{key}={value}" for key, _, value in pairs if key in self.swept) or f"job {number}"


def progress(total: int, statuses: Sequence[str], seconds: float, num_before: int, noun: str = "jobs") -> str:
    """Return how many of `total` are done, and how long the rest will take if they go on as they did.

    `seconds` is the time since the sweep was (re)started, when `num_before` were done.
    """
    num_done, num_failed = sum(status in OVER for status in statuses), statuses.count("failed")
    failed = f", {num_failed} failed" if num_failed else ""
    num_left, num_now = total - num_done - num_failed, num_done + num_failed - num_before
    rest = f", about {time_text(seconds / num_now * num_left)} to go" if num_left > 0 and num_now > 0 else ""
    return f"{num_done} of {total} {noun} done{failed}{rest}"


def make_plan(overrides: list[str], num_done_before: int) -> Plan:
    """Return the jobs that Hydra's basic sweeper makes of its parameters and a command's overrides."""
    parsed = OverridesParser.create().parse_overrides(overrides)
    last = {override.get_key_element(): override for override in parsed}  # a later word for a key replaces the earlier
    (jobs,) = BasicSweeper.split_arguments(parsed, max_batch_size=None)
    swept = [override.key_or_group for override in last.values() if override.is_sweep_override()]
    return Plan(swept, [[*job] for job in jobs], time(), num_done_before)


def write_plan(folder: Path, plan: Plan) -> None:
    """Write sweep.json."""
    write_json(folder / PLAN, asdict(plan))


def read_plan(folder: Path) -> Plan | None:
    """Return the plan in the folder; None if there is none that can be read."""
    try:
        return Plan(**json.loads((folder / PLAN).read_text()))
    except (OSError, ValueError, TypeError):
        return None


def read_multirun_yaml(folder: Path) -> dict[str, Any]:
    """Return Hydra's own node of the sweep's multirun.yaml, its overrides as they were written.

    Hydra writes the file again at every start, and not atomically: a copy is kept for the day that this is cut.
    """
    path, copy = folder / "multirun.yaml", folder / ".multirun.yaml.copy"
    for source in (path, copy):
        try:
            text = source.read_text()
            hydra: dict[str, Any] = OmegaConf.to_container(OmegaConf.create(text), resolve=False)["hydra"]  # type: ignore
            assert hydra["overrides"]["task"] is not None
        except (OSError, ValueError, TypeError, KeyError, AssertionError, YAMLError, OmegaConfBaseException):
            continue
        write_atomically(copy, lambda file, text=text: file.write(text.encode()))  # type: ignore[misc]
        return hydra
    if (folder / "study.db").exists():
        raise UserError(
            f"{folder} holds a search. To continue it: python -m cifar.tune folder={shlex.quote(str(folder))}"
        )
    raise UserError(
        f"{folder} is not a sweep's folder: it has no multirun.yaml. One run: python run.py resume={folder}"
    )


def find_runs(folder: Path) -> list[Path]:
    """Return the folders of the runs in a folder, its own if it is a run's, "2" before "10".

    Runs that were put aside for others are left out.
    """
    if is_run(folder):
        return [folder]
    found: list[Path] = []
    for path in folder.iterdir() if folder.is_dir() else ():
        if path.is_dir() and not path.name.startswith((".", "replaced-", "wandb")) and not path.is_symlink():
            found += find_runs(path)
    return sorted(found, key=lambda path: natural(str(path)))


def is_run(folder: Path) -> bool:
    """Return whether a run has begun in the folder."""
    return any((folder / name).exists() for name in ("summary.json", "metrics.jsonl", ".hydra/config.yaml"))


def natural(text: str) -> list[tuple[int, str]]:
    """Return a key for sorting that takes digits for numbers."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"([0-9]+)", text)]


def statuses(folder: Path) -> list[str]:
    """Return how the runs in the folder that have begun ended, or that they did not."""
    return [str(read_summary(run).get("status") or "interrupted") for run in find_runs(folder)]


def num_over(folder: Path) -> int:
    """Return how many runs in the folder have a result."""
    return sum(status in OVER for status in statuses(folder))


def time_text(seconds: float) -> str:
    """Return a duration in words, such as "3 min 20 s"."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    if minutes >= 10:
        return f"{minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"
