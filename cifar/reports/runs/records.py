"""The files that runs leave, read whatever is in them: what is missing, damaged or of another type costs a warning."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeGuard

import yaml

from cifar.reports.runs.results import CURVES, STATUSES, Curve

MAX_CURVE_POINTS = 200
MAX_DEPTH, MAX_NODES = 50, 200_000  # of a file's nested values; what is beyond would stop the report
LARGEST = 1e300  # sums of such numbers are still numbers
LARGEST_WHOLE = 2**53  # beyond, not all whole numbers are floats
CHUNK = 1000  # lines read at once
UNREADABLE = (OSError, ValueError, RecursionError, MemoryError)


def is_text(value: Any) -> TypeGuard[str]:
    """Return whether the value is a text."""
    return isinstance(value, str)


def is_texts(value: Any) -> TypeGuard[list[str]]:
    """Return whether the value is a list of texts."""
    return isinstance(value, list) and all(map(is_text, value))


def is_number(value: Any) -> bool:
    """Return whether the value is a number that can be calculated with."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) <= LARGEST


def is_fraction(value: Any) -> bool:
    """Return whether the value can be an accuracy."""
    return is_number(value) and 0 <= value <= 1


def is_whole(value: Any) -> TypeGuard[int]:
    """Return whether the value is a whole number."""
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) <= LARGEST_WHOLE


def is_count(value: Any) -> TypeGuard[int]:
    """Return whether the value is a whole number that counts something."""
    return is_whole(value) and value >= 0


def is_test_on(value: Any) -> bool:
    """Return whether the value is what a run says of more test sets."""
    return isinstance(value, dict) and all(isinstance(entry, dict) and is_result(entry) for entry in value.values())


def is_result(entry: dict[str, Any]) -> bool:
    """Return whether it is a result on one set: of many images, or of several kinds of them at some levels."""
    kinds, levels = entry.get("kinds", {}), entry.get("levels", [])
    if not is_fraction(entry.get("accuracy")) or not is_count(entry.get("num_images")):
        return False
    if not isinstance(kinds, dict) or not isinstance(levels, list) or not all(map(is_count, levels)):
        return False
    return all(
        isinstance(row, list) and len(row) == len(levels) and all(map(is_fraction, row)) for row in kinds.values()
    )


# What the report takes from a summary; null stands for what is not known.
KINDS: dict[str, Callable[[Any], bool]] = {
    "status": lambda value: is_text(value) and value in STATUSES,
    **dict.fromkeys(("error", "config_hash", "point", "init_hash", "device", "precision", "git_commit"), is_text),
    **dict.fromkeys(("val_accuracy", "best_val_accuracy", "test_accuracy", "test_tta_accuracy"), is_fraction),
    **dict.fromkeys(("val_loss", "test_loss", "train_loss"), is_number),
    **dict.fromkeys(
        ("train_seconds", "eval_seconds", "images_per_second", "epochs"), lambda value: is_number(value) and value >= 0
    ),
    **dict.fromkeys(("job", "steps", "skipped_steps", "best_val_epoch", "num_parameters"), is_count),
    **dict.fromkeys(("config", "choices", "versions"), lambda value: isinstance(value, dict)),
    "seed": is_whole,
    "test_on": is_test_on,
    "normalisation": lambda value: isinstance(value, dict) and {*value} == {"mean", "std"},
    **dict.fromkeys(("overrides", "flags"), is_texts),
}


def read_summary(path: Path, warnings: list[str]) -> dict[str, Any]:
    """Return what a summary.json says under the keys of `KINDS`, each of the type that it has there."""
    try:
        content = tidy(json.loads(path.read_bytes()))
        if not isinstance(content, dict):
            raise ValueError("it is no object")
    except UNREADABLE as error:
        reason = "is missing" if isinstance(error, FileNotFoundError) else f"can't be read ({reason_of(error)})"
        warnings.append(f"{path} {reason}: this run has no results.")
        return {}
    known = {key: value for key in KINDS if (value := content.get(key)) is not None}
    if wrong := [key for key, value in known.items() if not KINDS[key](value)]:
        warnings.append(f"{path}: no run writes such {', '.join(wrong)}, so they are left out.")
    return {key: value for key, value in known.items() if key not in wrong}


def reason_of(error: BaseException) -> str:
    """Return in words why a file can't be read."""
    return "it is nested too deeply" if isinstance(error, RecursionError) else str(error) or type(error).__name__


def read_yaml(path: Path, default: Any) -> Any:
    """Return a YAML file's content, or the default if it can't be read."""
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        text, depth = path.read_bytes(), 0
        for event in yaml.parse(text, loader):  # libyaml itself has no limit but the stack's end
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if depth > MAX_DEPTH:
                return default
        return tidy(yaml.load(text, loader)) or default
    except (*UNREADABLE, TypeError, yaml.YAMLError):
        return default


def tidy(content: Any) -> Any:
    """Return JSON's or YAML's content so that it can be shown, compared and written: plain types and whole characters.

    Numbers that are no finite floats become texts. Raises `ValueError` for what is nested too deeply or too large.
    """
    num_nodes = 0

    def copy(value: Any, depth: int) -> Any:
        nonlocal num_nodes
        num_nodes += 1
        if depth > MAX_DEPTH or num_nodes > MAX_NODES:
            raise ValueError("it is nested too deeply" if depth > MAX_DEPTH else "it is too large")
        if isinstance(value, dict):
            return {str(copy(key, depth + 1)): copy(entry, depth + 1) for key, entry in value.items()}
        if isinstance(value, (list, tuple)):
            return [copy(entry, depth + 1) for entry in value]
        if value is None or isinstance(value, bool):
            return value
        if isinstance(value, int):
            return value if value.bit_length() <= 1000 else f"a number of {value.bit_length()} bits"
        if isinstance(value, float) and math.isfinite(value):
            return value
        return str(value).encode(errors="replace").decode()  # half a surrogate pair is no character

    return copy(content, 0)


def read_curves(path: Path, warnings: list[str]) -> dict[str, Curve]:
    """Return the curves in a metrics.jsonl, thinned out to what a figure can show."""
    curves: dict[str, Curve] = {key: ([], []) for key in CURVES}
    num_damaged = 0
    try:
        lines = path.read_bytes().splitlines()
    except OSError:
        lines = []
    for start in range(0, len(lines), CHUNK):
        for entry in read_lines(lines[start : start + CHUNK]):
            if not is_entry(entry):
                num_damaged += 1
                continue
            for key, (steps, values) in curves.items():
                if (value := entry.get(key)) is not None:
                    steps.append(entry["step"])
                    values.append(float(value))
    if num_damaged:
        warnings.append(f"{path}: {num_damaged} of {len(lines)} lines are damaged and left out.")
    return {key: thin(curve) for key, curve in curves.items()}


def read_lines(lines: list[bytes]) -> list[Any]:
    """Return the JSON of each line, None for one that is damaged; all at once if none is, which is faster."""
    try:
        entries: list[Any] = json.loads(b"[" + b",".join(lines) + b"]")
        if len(entries) == len(lines):
            return entries
    except UNREADABLE:
        pass
    return [read_json(line) for line in lines]


def read_json(text: bytes) -> Any:
    """Return a text's JSON, None if it is damaged."""
    try:
        return json.loads(text)
    except UNREADABLE:
        return None


def is_entry(entry: Any) -> TypeGuard[dict[str, Any]]:
    """Return whether a run may have written such a line of metrics.jsonl, as far as the curves go."""
    if not isinstance(entry, dict) or not is_count(entry.get("step")):
        return False
    loss, accuracy = entry.get("train/loss"), entry.get("val/accuracy")
    return (loss is None or is_number(loss)) and (accuracy is None or is_fraction(accuracy))


def thin(curve: Curve) -> Curve:
    """Return at most `MAX_CURVE_POINTS` evenly chosen points of the curve, the first and the last among them."""
    steps, values = curve
    if len(steps) <= MAX_CURVE_POINTS:
        return curve
    chosen = [round(index * (len(steps) - 1) / (MAX_CURVE_POINTS - 1)) for index in range(MAX_CURVE_POINTS)]
    return [steps[index] for index in chosen], [values[index] for index in chosen]
