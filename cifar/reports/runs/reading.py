"""Runs read back from their folders: what they say, what differs between them, and which of them count.

Nothing here imports torch, and a damaged or missing file costs a warning.
"""

import math
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser

from cifar.base.errors import UserError
from cifar.base.locks import is_locked
from cifar.base.nested import flatten
from cifar.base.paths import absolute
from cifar.experiment.config import decides_numbers
from cifar.experiment.stored.formats import with_defaults
from cifar.reports.runs.records import (
    UNREADABLE,
    is_count,
    is_texts,
    is_whole,
    read_curves,
    read_summary,
    read_yaml,
    tidy,
)
from cifar.reports.runs.results import Point, Results, Run, Value, show
from cifar.sweeps.plan import PLAN, find_runs, read_plan

KEY = re.compile(r"[\w.$/-]+")
RESULTS = ("val_accuracy", "test_accuracy", "test_tta_accuracy", "val_loss", "test_loss", "train_loss")
START = "init_from"  # a long path, which says nothing more where every model has its own
MAX_NAMED = 5  # folders in one warning
# What the runs were made with, and where their summaries say so.
FACTS: dict[str, Callable[[dict[str, Any]], Any]] = {
    "hardware": lambda summary: summary.get("device"),
    "precision": lambda summary: summary.get("precision"),
    "commit": lambda summary: summary.get("git_commit"),
    **{
        name: lambda summary, name=name: summary.get("versions", {}).get(name)  # type: ignore[misc]
        for name in ("python", "torch", "numpy")
    },
}


def read_sweep(folder: str | Path) -> Results:
    """Return what the runs in a sweep's folder have to say, pooled over seeds, the best point first.

    Raises `UserError` if there is no run in it.
    """
    return read_results([absolute(str(folder))])


def read_results(folders: Sequence[Path]) -> Results:
    """Read the runs in the folders (sweeps' or runs' own); raise `UserError` if there is none."""
    warnings: list[str] = []
    runs = [run for folder in folders for run in read_folder(folder, warnings)]
    if not runs:
        raise UserError(f"There is no run in {', '.join(map(str, folders))}.")
    runs = without_repetitions(runs, warnings)
    keys, constants = find_keys(runs)
    pools: dict[tuple[Value, ...], list[Run]] = defaultdict(list)
    for run in runs:
        pools[tuple(run.values[key] for key in keys)].append(run)
    points = [Point(dict(zip(keys, values, strict=True)), pool) for values, pool in pools.items()]
    results = Results([*folders], keys, constants, points, warnings)
    means = {id(point): point.mean(results.score_key) for point in points}
    points.sort(key=lambda point: math.inf if (mean := means[id(point)]) is None else -mean)
    warn(results)
    return results


def read_folder(folder: Path, warnings: list[str]) -> list[Run]:
    """Return the runs in a sweep's folder, also those to come, or the one run whose folder it is."""
    runs = [read_run(path, warnings) for path in find_runs(folder)]
    numbers = {run.number for run in runs}
    unknown = [run for run in runs if run.number is None]  # their summaries may have been lost
    by_name = {run.folder.name: run for run in unknown}
    by_words = {tuple(sorted(run.overrides)): run for run in unknown}
    jobs, flags = read_jobs(folder, warnings)
    for number, overrides in jobs.items():
        if number in numbers:
            continue
        run = by_name.get(str(number)) or by_words.get(tuple(sorted(overrides)))
        if run is None or run.number is not None:
            runs.append(Run(folder / str(number), "pending", number, overrides=overrides, summary={"flags": flags}))
        else:
            run.number, run.overrides = number, run.overrides or overrides
    return sorted(runs, key=lambda run: math.inf if run.number is None else run.number)


def read_jobs(folder: Path, warnings: list[str]) -> tuple[dict[int, list[str]], list[str]]:
    """Return the overrides of a sweep's jobs by their numbers, and its flags; none, if its plan can't be read."""
    if not (folder / PLAN).exists():
        return {}, []
    try:
        plan = read_plan(folder)
        jobs = tidy([*plan.by_number().items()]) if plan else None
        flags = tidy(plan.begun.flags) if plan and plan.begun else []
    except (*UNREADABLE, TypeError, AttributeError):
        jobs = flags = None
    if jobs is None or not is_texts(flags) or not all(is_count(number) and is_texts(job) for number, job in jobs):
        warnings.append(f"{folder / PLAN} can't be read: jobs that have not begun are not shown.")
        return {}, []
    return dict(jobs), flags


def read_run(folder: Path, warnings: list[str]) -> Run:
    """Read what the folder of a run has; what is missing or damaged costs a warning."""
    summary = read_summary(folder / "summary.json", warnings)
    status = summary.get("status", "interrupted")
    if status == "running" or not summary:
        status = "running" if is_locked(folder) else "interrupted"
    config = summary.get("config") or read_yaml(folder / ".hydra" / "config.yaml", {})
    leaves = flatten(with_defaults(config)) if isinstance(config, dict) else {}
    if init_hash := summary.get("init_hash"):
        leaves["init_from.sha256"] = init_hash[:12]  # runs differ by it even where the path is the same
    overrides = summary.get("overrides") or read_yaml(folder / ".hydra" / "overrides.yaml", [])
    seed = leaves.get("seed")
    return Run(
        folder,
        status,
        number=summary.get("job"),
        seed=seed if is_whole(seed) else None,
        overrides=[str(word) for word in overrides] if isinstance(overrides, list) else [],
        choices={group: plain(choice) for group, choice in summary.get("choices", {}).items()},
        config=leaves,
        summary=summary,
        curves=read_curves(folder / "metrics.jsonl", warnings),
    )


def without_repetitions(runs: list[Run], warnings: list[str]) -> list[Run]:
    """Return the runs without those that repeat another exactly, which would feign certainty.

    Runs of the same configuration and seed with other results are kept, and named.
    """
    kept: list[Run] = []
    earlier: dict[str, list[Run]] = defaultdict(list)
    for run in runs:
        same = earlier[run.summary["config_hash"]] if run.is_counted and "config_hash" in run.summary else []
        if repeated := [other for other in same if not different_results(other, run)]:
            text = f"{run.folder} has the configuration and seed of {repeated[0].folder} and is not counted again."
            warnings.append(text)
            continue
        if same:
            found = different_results(same[0], run)
            values = ", ".join(f"{key} {show(before)} and {show(after)}" for key, (before, after) in found.items())
            warnings.append(
                f"{same[0].folder} and {run.folder} have the same configuration and seed, but other results: {values}. "
                "Something that is not in the configuration differed. Their mean counts as one seed."
            )
        kept.append(run)
        if run.is_counted and "config_hash" in run.summary:
            same.append(run)
    return kept


def different_results(first: Run, second: Run) -> dict[str, tuple[Value, Value]]:
    """Return the results of two runs that differ by more than rounding, each with both values."""
    found: dict[str, tuple[Value, Value]] = {}
    for key in RESULTS:
        before, after = first.figure(key), second.figure(key)
        is_same = before == after if before is None or after is None else math.isclose(before, after, rel_tol=1e-6)
        if not is_same:
            found[key] = (before, after)
    return found if first.status == second.status else {"status": (first.status, second.status), **found}


def find_keys(runs: list[Run]) -> tuple[list[str], dict[str, Value]]:
    """Fill in the runs' values; return the keys by which their points differ, and the constants.

    First come the keys that were given on the command line. If they do not tell two configurations apart, because
    the YAML files or defaults differ too, all keys whose values differ are added.
    """
    given = {id(run): given_words(run) for run in runs}
    words = Words()
    keys = [*dict.fromkeys(key for run in runs for key in given[id(run)])]
    for run in runs:
        for key in keys:
            run.values[key] = lookup(run, key, given[id(run)], words)
        if run.seed is None and is_whole(seed := lookup(run, "seed", given[id(run)], words)):
            run.seed = seed
    swept = [key for key in keys if key != "seed" and differs(run.values[key] for run in runs)]
    has_own_starts = {"model", START} <= {*swept} and follows(START, "model", runs)
    if has_own_starts:
        swept.remove(START)
    points: dict[tuple[Value, ...], Run] = {}
    known = [run for run in runs if "point" in run.summary]
    extra: dict[str, None] = {}  # in order
    for run in known:
        other = points.setdefault(tuple(run.values[key] for key in swept), run)
        if other.summary["point"] != run.summary["point"]:
            extra |= dict.fromkeys(key for key in differing(other.config, run.config) if key != "seed")
    constants = {key: runs[0].values[key] for key in keys if key not in (*swept, "seed")}
    if has_own_starts:
        constants[START] = "one for each model"
    for run in runs:
        run.values = {key: run.values[key] for key in swept} | {key: plain(run.config.get(key)) for key in extra}
    return [*swept, *extra], constants


def follows(key: str, other: str, runs: list[Run]) -> bool:
    """Return whether every value of `other` has one of `key`, and not none: a checkpoint for each model, say."""
    pairs = {(run.values[other], run.values[key]) for run in runs}
    return len(pairs) == len({value for value, _ in pairs}) and all(value is not None for _, value in pairs)


class Words:
    """The values of a command line's words, each read once."""

    def __init__(self) -> None:
        self.parser = OverridesParser.create()
        self.values: dict[str, Value] = {}

    def value(self, word: str) -> Value:
        """Return the value that a word such as "lr=0.1" gives its key; None if it deletes it or can't be read."""
        if word not in self.values:
            try:
                (override,) = self.parser.parse_overrides([word])
                self.values[word] = None if override.is_delete() else plain(tidy(override.value()))
            except Exception:  # a damaged file may hold anything
                self.values[word] = None
        return self.values[word]


def given_words(run: Run) -> dict[str, str]:
    """Return the command line's words by their keys, without those that can't change any number."""
    pairs = ((word.partition("=")[0].lstrip("+~").partition("@")[0], word) for word in run.overrides)
    return {
        key: word for key, word in pairs if KEY.fullmatch(key) and decides_numbers(key) and not key.startswith("hydra")
    }


def lookup(run: Run, key: str, given: dict[str, str], words: Words) -> Value:
    """Return the value that the run has for a key or the choice for a group; what was given, if it has not begun.

    A choice whose `_target_` was given too is shown by that: it's what ran.
    """
    target = f"{key.replace('/', '.')}._target_"
    if target in given:
        return plain(run.config.get(target, words.value(given[target])))
    if key in run.choices:
        return run.choices[key]
    if key in run.config:
        return plain(run.config[key])
    return words.value(given[key]) if key in given else None


def plain(value: Any) -> Value:
    """Return the value itself, or lists and the like as text."""
    return value if value is None or isinstance(value, (str, int, float)) else str(value)


def differs(values: Iterable[Value]) -> bool:
    """Return whether the values are not all the same."""
    return len({*values}) > 1


def differing(first: dict[str, Any], second: dict[str, Any]) -> list[str]:
    """Return the keys that can change a run's numbers and whose values differ."""
    keys = [*first, *(key for key in second if key not in first)]
    return [key for key in keys if decides_numbers(key) and first.get(key) != second.get(key)]


def warn(results: Results) -> None:
    """Add what a reader of the report must know, and with what the runs were made."""
    counted = [run for run in results.runs if run.is_counted]
    num_without = sum(run.figure("val_accuracy") is None for run in counted)
    if counted and num_without == len(counted):
        text = (
            "No validation images were held out, so the ranking is by the test set, on which nothing should be chosen. "
            "Sweep with data.val_size=5000."
        )
        results.warnings.insert(0, text)
    elif num_without:
        results.warnings.insert(0, f"{num_without} of {len(counted)} runs held no validation images out and rank last.")
    if skipped := [run for run in counted if run.num_skipped]:
        named = ", ".join(f"{run.folder} ({run.skipped_text})" for run in skipped[:MAX_NAMED])
        more = f" and {len(skipped) - MAX_NAMED} more" if len(skipped) > MAX_NAMED else ""
        results.warnings.append(
            f"{len(skipped)} of {len(counted)} runs skipped steps whose loss or gradient was not finite: {named}{more}."
        )
    for name, fact in FACTS.items():
        found = [*dict.fromkeys(plain(fact(run.summary)) for run in counted)]
        known = [value for value in found if value is not None]
        if len(known) > 1:
            results.warnings.append(f"Not all runs were made with the same {name}: {', '.join(map(show, known))}.")
        elif known and known == found:
            results.constants[name] = known[0]
