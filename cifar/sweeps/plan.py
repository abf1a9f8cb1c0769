"""What a sweep consists of: its jobs, the keys that differ between them, and how far it is.

The jobs are drawn once, when the sweep begins, and kept in `sweep.json` with all else that it was begun with. Jobs, the
console, the report and a resumed sweep take them from there.
"""

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from itertools import chain, product
from pathlib import Path
from time import time
from typing import Any

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.config_loader import ConfigLoader
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, Sweep

from cifar.base.errors import UserError
from cifar.base.run_folder import read_summary, to_json, write_json
from cifar.experiment.typed.command_line import key_of as key_of

PLAN = "sweep.json"
OWN_NUMBER = "hydra.sweeper.number"  # the key by which a job knows its number, whatever its launcher counts
OVER = ("completed", "diverged", "pruned")  # the statuses of runs that have a result


@dataclass(frozen=True)
class Begun:
    """What a sweep was begun with, beside its jobs."""

    task: list[str]  # the words of the command as they were typed, without resume
    hydra: list[str]  # those for Hydra itself, without what every sweep has
    flags: list[str]  # --config-dir and its like, with absolute paths
    cwd: str
    base: dict[str, Any]  # the configuration without swept values by keys with dots, as far as it decides numbers


@dataclass(frozen=True)
class Plan:
    """The swept keys, in the command's order, every job's overrides, and when the sweep (re)started.

    `numbers` are the jobs' own, by which their folders are called; a job keeps its number when others are added.
    """

    swept: list[str]
    jobs: list[list[str]]
    started_at: float  # seconds since 1970
    num_done_before: int
    numbers: list[int] = field(default_factory=list)
    begun: Begun | None = None  # None: an earlier version wrote the plan

    def __post_init__(self) -> None:
        if not self.numbers:
            self.numbers.extend(range(len(self.jobs)))

    def by_number(self) -> dict[int, list[str]]:
        """Return every job's overrides by its number."""
        return dict(zip(self.numbers, self.jobs, strict=True))

    def label(self, number: int) -> str:
        """Return what makes the job differ from the others, such as "lr=0.01 seed=3"."""
        words = self.swept_words(self.jobs[self.numbers.index(number)]) if number in self.numbers else ()
        shown = (f"{word[:-2]}null" if word.endswith("=[]") else word.lstrip("+") for word in words)
        return " ".join(shown) or f"job {number}"

    def swept_words(self, job: list[str]) -> tuple[str, ...]:
        """Return those of the job's overrides that others may have differently."""
        return tuple(word for word in job if key_of(word) in self.swept)


def progress(total: int, statuses: Sequence[str], seconds: float, num_before: int, noun: str = "jobs") -> str:
    """Return how many of `total` are done, and how long the rest will take if they go on as they did.

    `seconds` is the time since the sweep was (re)started, when `num_before` were done.
    """
    num_done, num_failed = sum(status in OVER for status in statuses), statuses.count("failed")
    failed = f", {num_failed} failed" if num_failed else ""
    num_left, num_now = total - num_done - num_failed, num_done + num_failed - num_before
    rest = f", about {time_text(seconds / num_now * num_left)} to go" if num_left > 0 and num_now > 0 else ""
    return f"{num_done} of {total} {noun} done{failed}{rest}"


def make_plan(overrides: list[str], num_done_before: int, config_loader: ConfigLoader | None = None) -> Plan:
    """Draw the jobs that Hydra's basic sweeper makes of its parameters and a command's overrides.

    Swept keys with a common tag that begins with "zip" go together: their first values, their second ones, … .
    `config_loader` is asked for the choices that a glob matches. Raises `UserError` if such keys differ in how many
    values they have.
    """
    parsed = OverridesParser.create(config_loader).parse_overrides(overrides)
    last = {override.get_key_element(): override for override in parsed}  # a later word for a key replaces the earlier
    together: dict[str | int, list[Override]] = {}
    for number, override in enumerate(last.values()):
        together.setdefault(zip_tag(override) or number, []).append(override)
    jobs = [[*chain(*parts)] for parts in product(*map(side_by_side, together.values()))]
    swept = [override.key_or_group for override in last.values() if override.is_sweep_override()]
    return Plan(swept, jobs, time(), num_done_before)


def zip_tag(override: Override) -> str | None:
    """Return the tag by which a swept key goes together with others; None: it goes by itself."""
    sweep = override.value() if override.is_sweep_override() else None
    tags = sorted(tag for tag in sweep.tags if tag.startswith("zip")) if isinstance(sweep, Sweep) else []
    return tags[0] if tags else None


def side_by_side(overrides: list[Override]) -> list[list[str]]:
    """Return the words of overrides that go together, one list for each of their values."""
    columns = []
    for override in overrides:
        (jobs,) = BasicSweeper.split_arguments([override], max_batch_size=None)
        columns.append([[*job] for job in jobs])
    counts = [f"{override.input_line} has {len(column)}" for override, column in zip(overrides, columns, strict=True)]
    if len({len(column) for column in columns}) > 1:
        raise UserError(f"Keys that go together need the same number of values: {', '.join(counts)}.")
    return [[*chain(*row)] for row in zip(*columns, strict=True)]


def write_plan(folder: Path, plan: Plan) -> None:
    """Write sweep.json, with a checksum."""
    content = asdict(plan)
    write_json(folder / PLAN, content | {"sha256": checksum(content)})


def checksum(content: dict[str, Any]) -> str:
    """Return the SHA-256 of a plan's content."""
    return hashlib.sha256(to_json(content).encode()).hexdigest()


def read_plan(folder: Path) -> Plan | None:
    """Return the plan in the folder; None if there is none that is whole."""
    try:
        content = json.loads((folder / PLAN).read_text())
        if "numbers" in content and content.pop("sha256", None) != checksum(content):
            return None
        begun = content.get("begun")
        plan = Plan(**content | {"begun": begun and Begun(**begun)})
        return plan if len(plan.jobs) == len(plan.numbers) else None
    except (OSError, ValueError, TypeError, AttributeError, RecursionError):
        return None


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


def result_text(summary: dict[str, Any]) -> str:
    """Return a finished run's accuracies in words."""
    sets = [("val_accuracy", "validation"), ("test_accuracy", "test")]
    found = [f"{100 * summary[key]:.2f} % on the {name} images" for key, name in sets if summary.get(key) is not None]
    return ", ".join([*(["diverged"] if summary.get("status") == "diverged" else []), *found])


def time_text(seconds: float) -> str:
    """Return a duration in words, such as "3 min 20 s"."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    if minutes >= 10:
        return f"{minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"
