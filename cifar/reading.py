"""Runs read back from their folders: what they say, what differs between them, and which of them count.

Nothing here imports torch, and a damaged or missing file costs a warning.
"""

import json
import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import yaml
from hydra.core.override_parser.overrides_parser import OverridesParser

from cifar.config import decides_numbers, flatten
from cifar.errors import UserError
from cifar.formats import with_defaults
from cifar.results import CURVES, STATUSES, Curve, Point, Results, Run, Value, show
from cifar.run_folder import is_locked
from cifar.sweep import find_runs, read_plan

MAX_CURVE_POINTS = 200
# What the runs were made with, and where their summaries say so.
FACTS: dict[str, Callable[[dict[str, Any]], Any]] = {
    "hardware": lambda summary: summary.get("device"),
    "precision": lambda summary: summary.get("precision"),
    "commit": lambda summary: summary.get("git_commit"),
    **{
        name: lambda summary, name=name: (summary.get("versions") or {}).get(name)  # type: ignore[misc]
        for name in ("python", "torch", "numpy")
    },
}


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
    plan = read_plan(folder)
    runs = [read_run(path, warnings) for path in find_runs(folder)]
    for number, overrides in (plan.by_number() if plan else {}).items():
        if not any(is_job(run, number, overrides) for run in runs):
            runs.append(Run(folder / str(number), "pending", number, overrides=overrides))
    return sorted(runs, key=lambda run: math.inf if run.number is None else run.number)


def is_job(run: Run, number: int, overrides: list[str]) -> bool:
    """Return whether the run is the sweep's job of that number, and note so; its summary may have been lost."""
    if run.number is None and (run.folder.name == str(number) or sorted(run.overrides) == sorted(overrides)):
        run.number, run.overrides = number, run.overrides or overrides
    return run.number == number


def read_run(folder: Path, warnings: list[str]) -> Run:
    """Read what the folder of a run has; what is missing or damaged costs a warning."""
    try:
        summary = json.loads((folder / "summary.json").read_bytes())
        if not isinstance(summary, dict):
            raise ValueError("it is no object")
    except (OSError, ValueError) as error:
        summary = {}
        reason = "is missing" if isinstance(error, FileNotFoundError) else f"can't be read ({error})"
        warnings.append(f"{folder / 'summary.json'} {reason}: this run has no results.")
    status = str(summary.get("status") or "interrupted")
    if status == "running" or not summary:
        status = "running" if is_locked(folder) else "interrupted"
    config = summary.get("config") or read_yaml(folder / ".hydra" / "config.yaml", {})
    leaves = flatten(with_defaults(config)) if isinstance(config, dict) else {}
    if isinstance(init_hash := summary.get("init_hash"), str):
        leaves["init_from.sha256"] = init_hash[:12]  # runs differ by it even where the path is the same
    overrides = summary.get("overrides") or read_yaml(folder / ".hydra" / "overrides.yaml", [])
    number, seed = summary.get("job"), leaves.get("seed")
    return Run(
        folder,
        status if status in STATUSES else "interrupted",
        number=number if isinstance(number, int) else None,
        seed=seed if isinstance(seed, int) else None,
        overrides=[str(word) for word in overrides] if isinstance(overrides, list) else [],
        choices=summary.get("choices") or {},
        config=leaves,
        summary=summary,
        curves=read_curves(folder / "metrics.jsonl", warnings),
    )


def read_yaml(path: Path, default: Any) -> Any:
    """Return a YAML file's content, or the default if it can't be read."""
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        return yaml.load(path.read_text(), loader) or default
    except (OSError, ValueError, yaml.YAMLError):
        return default


def read_curves(path: Path, warnings: list[str]) -> dict[str, Curve]:
    """Return the curves in a metrics.jsonl, thinned out to what a figure can show."""
    curves: dict[str, Curve] = {key: ([], []) for key in CURVES}
    num_damaged = 0
    try:
        lines = path.read_bytes().splitlines()
    except OSError:
        lines = []
    for line in lines:
        try:
            entry = json.loads(line)
            step = int(entry["step"])
            for key in CURVES:
                if isinstance(value := entry.get(key), (int, float)):
                    curves[key][0].append(step)
                    curves[key][1].append(float(value))
        except (ValueError, TypeError, KeyError, AttributeError):
            num_damaged += 1
    if num_damaged:
        warnings.append(f"{path}: {num_damaged} of {len(lines)} lines are damaged and left out.")
    return {key: thin(curve) for key, curve in curves.items()}


def thin(curve: Curve) -> Curve:
    """Return at most `MAX_CURVE_POINTS` evenly chosen points of the curve, the first and the last among them."""
    steps, values = curve
    if len(steps) <= MAX_CURVE_POINTS:
        return curve
    chosen = [round(index * (len(steps) - 1) / (MAX_CURVE_POINTS - 1)) for index in range(MAX_CURVE_POINTS)]
    return [steps[index] for index in chosen], [values[index] for index in chosen]


def without_repetitions(runs: list[Run], warnings: list[str]) -> list[Run]:
    """Return the runs without those that repeat another exactly, which would feign certainty."""
    kept: list[Run] = []
    first: dict[str, Run] = {}
    for run in runs:
        same = first.setdefault(str(run.summary.get("config_hash")), run) if run.is_counted else run
        if same is run or "config_hash" not in run.summary:
            kept.append(run)
        else:
            warnings.append(f"{run.folder} has the configuration and seed of {same.folder} and is not counted again.")
    return kept


def find_keys(runs: list[Run]) -> tuple[list[str], dict[str, Value]]:
    """Fill in the runs' values; return the keys by which their points differ, and the constants.

    First come the keys that were given on the command line. If they do not tell two configurations apart, because
    the YAML files or defaults differ too, all keys whose values differ are added.
    """
    parser = OverridesParser.create()
    given = {id(run): given_values(run, parser) for run in runs}
    keys = [*dict.fromkeys(key for run in runs for key in given[id(run)])]
    for run in runs:
        for key in keys:
            run.values[key] = lookup(run, key, given[id(run)])
        if run.seed is None and isinstance(seed := lookup(run, "seed", given[id(run)]), int):
            run.seed = seed
    swept = [key for key in keys if key != "seed" and differs(run.values[key] for run in runs)]
    points: dict[tuple[Value, ...], Run] = {}
    known = [run for run in runs if "point" in run.summary]
    extra: list[str] = []
    for run in known:
        other = points.setdefault(tuple(run.values[key] for key in swept), run)
        if other.summary["point"] != run.summary["point"]:
            extra += [key for key in differing(other.config, run.config) if key not in (*extra, "seed")]
    constants = {key: runs[0].values[key] for key in keys if key not in (*swept, "seed")}
    for run in runs:
        run.values = {key: run.values[key] for key in swept} | {key: plain(run.config.get(key)) for key in extra}
    return [*swept, *extra], constants


def given_values(run: Run, parser: OverridesParser) -> dict[str, Value]:
    """Return the values of the command line's words by their keys, without those that can't change any number."""
    values: dict[str, Value] = {}
    for word in run.overrides:
        try:
            (override,) = parser.parse_overrides([word])
        except Exception:  # a damaged file may hold anything
            continue
        if decides_numbers(override.key_or_group) and not override.key_or_group.startswith("hydra"):
            values[override.key_or_group] = None if override.is_delete() else plain(override.value())
    return values


def lookup(run: Run, key: str, given: dict[str, Value]) -> Value:
    """Return the value that the run has for a key or the choice for a group; what was given, if it has not begun."""
    if key in run.choices:
        return run.choices[key]
    if key in run.config:
        return plain(run.config[key])
    return given.get(key)


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
    for name, fact in FACTS.items():
        found = [*dict.fromkeys(plain(fact(run.summary)) for run in counted)]
        if len(found) > 1:
            results.warnings.append(f"Not all runs were made with the same {name}: {', '.join(map(show, found))}.")
        elif found and found[0] is not None:
            results.constants[name] = found[0]
