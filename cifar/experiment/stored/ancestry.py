"""Where a run's first weights come from: what is in the file that init_from names, and the images they have seen."""

import hashlib
from functools import lru_cache
from typing import Any

from cifar.base.errors import UserError
from cifar.base.paths import absolute

# What decides which images a run held out, of those of its data set.
SPLIT = ("val_size", "split_seed", "classes")

Ancestry = list[dict[str, Any]]  # the splits of the runs that trained the weights, the first one first


def content_hash(path: str | None) -> str | None:
    """Return the SHA-256 of a file; None if there is none."""
    if path is None:
        return None
    try:
        file = absolute(path)
        stamp = file.stat()
        return hash_file(str(file.resolve()), (stamp.st_ino, stamp.st_size, stamp.st_mtime_ns))
    except (OSError, UserError):  # UserError: no such user
        return None


@lru_cache(maxsize=256)
def hash_file(path: str, stamp: tuple[int, int, int]) -> str:
    """Return the SHA-256 of a file, which is read once while its inode, size and time of change are the same."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def ancestry_of(checkpoint: dict[str, Any]) -> Ancestry | None:
    """Return the runs before the one that wrote the checkpoint; None if that is not known."""
    if "ancestry" not in checkpoint:  # the first format
        config = checkpoint.get("config")
        return [] if isinstance(config, dict) and config.get("init_from") is None else None
    ancestry = checkpoint["ancestry"]
    is_good = isinstance(ancestry, list) and all(isinstance(entry, dict) for entry in ancestry)
    return [*ancestry] if is_good else None


def seen_by(checkpoint: dict[str, Any]) -> Ancestry | None:
    """Return the runs that trained the weights of a checkpoint, its own the last; None if that is not known."""
    config, before = checkpoint.get("config"), ancestry_of(checkpoint)
    data = config.get("data") if isinstance(config, dict) else None
    if not isinstance(data, dict) or before is None:
        return None
    counters = checkpoint.get("counters", checkpoint)  # which were parts of their own before format 4
    is_trained = not isinstance(counters, dict) or counters.get("step") != 0
    return [*before, split_of(data)] if is_trained else before


def split_of(data: dict[str, Any]) -> dict[str, Any]:
    """Return what decides which images a run held out, of the `data` of its configuration."""
    source = data.get("source")
    target = str(source.get("_target_")) if isinstance(source, dict) else None
    known = {key: data[key] for key in SPLIT if data.get(key) is not None}
    return known | ({} if target is None else {"source": target.rpartition(".")[2]})


def may_have_seen(ancestry: Ancestry | None, split: dict[str, Any]) -> bool:
    """Return whether weights may have been trained on the images that a `split` holds out.

    Runs on another data set, as far as is known, have not.
    """
    if not split["val_size"]:
        return False
    if ancestry is None:
        return True
    source = split.get("source")
    of_same_data = [entry for entry in ancestry if None in (source, entry.get("source")) or entry["source"] == source]
    return any(entry.get(key) != split.get(key) for entry in of_same_data for key in SPLIT)
