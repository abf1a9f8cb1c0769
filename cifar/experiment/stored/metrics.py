"""metrics.jsonl, what a run measured while it went, read back as the columns of a table."""

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any


def read_columns(path: Path) -> dict[str, list[float]]:
    """Return a list for every column, NaN where nothing was logged; lines that are damaged are left out."""
    entries = [*read_entries(path)]
    keys = dict.fromkeys(key for entry in entries for key in entry)
    return {key: [number_of(entry.get(key)) for entry in entries] for key in keys}


def read_entries(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the objects of the file."""
    for line in path.read_bytes().splitlines():
        try:
            entry = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(entry, dict):
            yield entry


def number_of(value: Any) -> float:
    """Return the number itself, NaN for all else."""
    return value if isinstance(value, (int, float)) else math.nan
