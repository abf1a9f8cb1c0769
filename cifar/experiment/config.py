"""The typed schema of the configuration and the checks of its values; the defaults are in `conf/`.

Importing this registers the schema with Hydra, so that a misspelt key or a value of the wrong type fails while the
configuration is composed, for a sweep before its first job starts. `check` holds what types cannot say. Nothing
here imports torch: a mistake is answered in a second.
"""

import difflib
import hashlib
import json
import math
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from typing import Any

from hydra.core.config_store import ConfigStore
from omegaconf import MISSING, DictConfig, OmegaConf

from cifar.base.errors import UnknownKeyError, UserError
from cifar.base.nested import flatten
from cifar.base.paths import why_no_file
from cifar.experiment.stored.ancestry import content_hash
from cifar.experiment.stored.formats import without_defaults
from cifar.experiment.values.resolvers import resolvers_heard

PRECISIONS = ("auto", "fp32", "bf16", "bf16_or_fp32", "fp16")
VIEWS = ("none", "mirror", "mirror_translate")
REACTIONS = ("stop", "skip")
HEADS = KEEP, NEW = "keep", "new"
AUTO = "auto"  # the value of resume that asks for whatever the folder holds
DEVICES = ("auto", "cpu", "cuda", "mps")

# What cannot change a run's numbers does not enter its hash.
NOT_HASHED = (
    "resume", "checkpoint", "tracker", "log_every", "page", "test_on", "keep_best", "data.root",
    "data.source.root", "data.source.mirrors", "data.source.cache",
)  # fmt: skip


@dataclass
class Data:
    """What every data set has; `source` builds the one that was chosen."""

    source: dict[str, Any] = MISSING
    classes: list[str] | None = MISSING
    num_classes: int = MISSING
    mean: list[float] | None = MISSING
    std: list[float] | None = MISSING
    root: str = MISSING
    shuffle: bool = MISSING
    size_schedule: list[int] | None = MISSING
    limit: int | None = MISSING
    val_size: int = MISSING
    split_seed: int = MISSING
    test_limit: int | None = MISSING


@dataclass
class Device:
    """Where and how the arithmetic is done."""

    name: str = MISSING
    precision: str = MISSING
    channels_last: bool | None = MISSING
    fast_conv: bool | None = MISSING
    compile: bool = MISSING
    graph: bool = MISSING
    deterministic: bool = MISSING
    sync_batch_norm: bool = MISSING
    threads: int | None = MISSING


@dataclass
class Checkpoint:
    """When the run's state is saved."""

    every_epochs: int | None = MISSING
    every_minutes: float | None = MISSING
    keep: int = MISSING


@dataclass
class Config:
    """The whole configuration. A group typed `dict` is checked by the constructor that its `_target_` names.

    A key that is added here gets a line in cifar/experiment/stored/formats.py too, so that earlier runs can be resumed.
    """

    lr: float = MISSING
    epochs: int = MISSING
    batch_size: int = MISSING
    accumulate: int = MISSING
    eval_batch_size: int = MISSING
    seed: int = MISSING
    init_from: str | None = MISSING
    init_head: str = MISSING
    label_smoothing: float = MISSING
    tta: str = MISSING
    on_nonfinite: str = MISSING
    clip_norm: float | None = MISSING
    log_every: int = MISSING
    page: bool = MISSING
    keep_best: bool = MISSING
    resume: str | None = MISSING
    checkpoint: Checkpoint = field(default_factory=Checkpoint)
    model: dict[str, Any] = MISSING
    optimizer: dict[str, Any] = MISSING
    schedule: dict[str, Any] = MISSING
    average: dict[str, Any] = MISSING
    data: Data = field(default_factory=Data)
    test_on: dict[str, Any] = field(default_factory=dict)
    augment: dict[str, Any] = MISSING
    mix: dict[str, Any] = MISSING
    device: Device = field(default_factory=Device)
    tracker: dict[str, Any] = MISSING


ConfigStore.instance().store(name="schema", node=Config)


Rule = tuple[str, Callable[[Any], bool]]

MOST = 10**9  # of anything that is counted
MOST_THREADS = 1024  # far more than any machine has cores; torch ends the process where a thread can't be had
MOST_KEPT = 1000  # every one of these checkpoints is renamed at every save


def whole(least: int, most: int = MOST, what: str = "", or_null: str = "") -> Rule:
    """Return the rule for a whole number, or null if `or_null` says what that means."""
    text = f"{what}{least} to {most:,}{or_null}"
    return text, lambda value: (bool(or_null) and value is None) or (value is not None and least <= value <= most)


def three(words: str, is_good: Callable[[float], bool]) -> Rule:
    """Return the rule for a number a channel, or null for those of the training images."""
    return (
        f"{words}, or null: computed from the training images",
        lambda value: value is None or (len(value) == 3 and all(map(is_good, value))),
    )


def is_positive(value: float) -> bool:
    """Return whether the number is more than 0 and finite."""
    return 0 < value < math.inf


SEED = whole(0, 2**63 - 1)  # what torch and a 64-bit file format can hold

# What types cannot say: what a key takes, in words, and whether a value is that.
RULES: dict[str, Rule] = {
    "lr": ("a positive number, such as 0.01", is_positive),
    "epochs": whole(0, what="a whole number of epochs, "),
    "batch_size": whole(1),
    "accumulate": whole(1),
    "eval_batch_size": whole(1),
    "seed": SEED,
    "label_smoothing": ("a number from 0 to less than 1", lambda value: 0 <= value < 1),
    "init_head": ("one of " + ", ".join(HEADS), lambda value: value in HEADS),
    "tta": ("one of " + ", ".join(VIEWS), lambda value: value in VIEWS),
    "on_nonfinite": ("one of " + ", ".join(REACTIONS), lambda value: value in REACTIONS),
    "clip_norm": ("a positive number, or null", lambda value: value is None or is_positive(value)),
    "checkpoint.every_epochs": whole(1, or_null=", or null"),
    "checkpoint.every_minutes": ("a positive number, or null", lambda value: value is None or is_positive(value)),
    "checkpoint.keep": whole(1, MOST_KEPT),
    "log_every": whole(1, what="a number of steps, "),
    "data.limit": whole(1, what="a number of images, ", or_null=", or null for all"),
    "data.val_size": whole(0, what="a number of training images, "),
    "data.split_seed": SEED,
    "data.test_limit": whole(1, what="a number of test images, ", or_null=", or null for all"),
    "data.source": ("keys with values, _target_ among them", lambda value: isinstance(value, DictConfig)),
    "data.classes": (
        "a list of two or more different classes, or null for all",
        lambda value: value is None or len({*value}) == len(value) > 1,
    ),
    "data.num_classes": whole(1, 1_000_000),
    "data.size_schedule": (
        "a list of sizes in pixels, each at least 1, or null",
        lambda value: value is None or (len(value) > 0 and min(value) >= 1),
    ),
    "data.mean": three("three numbers", math.isfinite),
    "data.std": three("three positive numbers", is_positive),
    "device.name": ("one of " + ", ".join(DEVICES), lambda value: value in DEVICES),
    "device.precision": ("one of " + ", ".join(PRECISIONS), lambda value: value in PRECISIONS),
    "device.threads": whole(1, MOST_THREADS, or_null=", or null for torch's default"),
}


def check(cfg: DictConfig) -> None:
    """Raise `UserError` for the first key that the schema lacks or value that no run could use."""
    for group, schema in (("", Config), ("data", Data), ("device", Device), ("checkpoint", Checkpoint)):
        node, prefix = (cfg[group], f"{group}.") if group else (cfg, "")
        known = [entry.name for entry in fields(schema)]
        present = [str(key) for key in node]
        for key in [*present, *known]:
            if key not in known or key not in present or OmegaConf.is_missing(node, key):
                raise unknown_key(prefix + key, known)
    for key in RULES:
        check_value(cfg, key)
    if cfg.data.classes is not None and cfg.data.num_classes != (number := len(cfg.data.classes)):
        raise UserError(
            f"data.num_classes={cfg.data.num_classes} is not possible with data.classes, which names {number}: "
            f"give data.num_classes={number} too, or write ${{num_classes:${{data.classes}},…}} in the data set's file."
        )
    if cfg.keep_best and not cfg.data.val_size:
        raise UserError(
            "keep_best=true is not possible with data.val_size=0: which weights are best is chosen by images held out "
            "of the training set, never by the test images. data.val_size=5000 holds some out."
        )


def check_value(cfg: DictConfig, key: str) -> None:
    """Raise `UserError` if the key's value breaks its rule."""
    allowed, is_good = RULES[key]
    with resolvers_heard():
        value = OmegaConf.select(cfg, key, throw_on_missing=True)
    try:
        is_possible = is_good(value)
    except TypeError:  # an interpolation may lead to a value of any type
        is_possible = False
    if not is_possible:
        raise UserError(f"{key}={value} is not possible: it takes {allowed}.")


def unknown_key(key: str, known: list[str]) -> UserError:
    """Return the error for a key (with dots) that is none of the `known` ones beside it, or that was taken away."""
    parent, _, name = key.rpartition(".")
    if name in known:
        return UserError(f"{key} can't be left out.")
    guesses = difflib.get_close_matches(name, known, n=1)
    hint = f" Did you mean {guesses[0]!r}?" if guesses else ""
    has = f"{parent or 'The configuration'} has: {', '.join(sorted(known))}."
    return UnknownKeyError(f"There is no key {key!r}.{hint} {has}", key)


def resolve(cfg: DictConfig) -> dict[str, Any]:
    """Return the configuration as plain Python values, every interpolation replaced."""
    with resolvers_heard():
        resolved = OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True)
    assert isinstance(resolved, dict)
    return {str(key): value for key, value in resolved.items()}


def config_hash(resolved: dict[str, Any], init_hash: str | None = None) -> str:
    """Return 16 hexadecimal digits that are equal exactly when all that can change a run's numbers is.

    Of `init_from` the content counts, not the path: `init_hash`, or that of the file as it is now.
    """
    hashed = {key: value for key, value in flatten(without_defaults(resolved)).items() if decides_numbers(key)}
    if content := init_hash or content_hash(resolved.get("init_from")):
        hashed["init_from"] = f"sha256:{content}"
    return hashlib.sha256(json.dumps(hashed, sort_keys=True).encode()).hexdigest()[:16]


def point_hash(cfg: DictConfig, init_hash: str | None = None) -> str:
    """Return the hash that all seeds of one configuration share."""
    seedless = cfg.copy()
    seedless.seed = -1  # before what interpolates it is resolved; no seed of a run
    return config_hash(resolve(seedless), init_hash)


def missing_files(cfg: DictConfig) -> list[str]:
    """Return a message for each file that the configuration names, that a run needs and that is not there."""
    path = cfg.init_from
    return [] if path is None or content_hash(path) else [f"init_from={path!r}: {why_no_file(path)}."]


def decides_numbers(key: str) -> bool:
    """Return whether the value at a key with dots can change a run's numbers."""
    return not any(key == other or key.startswith(f"{other}.") for other in NOT_HASHED)


def number_changes(before: dict[str, Any], after: dict[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Return the keys whose values differ and can change a run's numbers, each with both values; None: not there."""
    old, new = flatten(before), flatten(after)
    keys = [key for key in [*old, *(key for key in new if key not in old)] if decides_numbers(key)]
    return {key: (old.get(key), new.get(key)) for key in keys if old.get(key) != new.get(key)}
