"""What a file that may be a stranger's can name: only the code that the user's own configuration names too.

Hydra calls whatever a `_target_` names. The user's own are those of the YAML files on the configuration's search path
and of the words typed now; what is stored in a checkpoint, a sweep's folder or a search is a stranger's.
docs/trust.md tells the whole rule.
"""

import os
import re
import shlex
from collections.abc import Iterable, Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import yaml
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from omegaconf import OmegaConf

from cifar.base.errors import UserError

TARGET = "_target_"
# What is kept of a search: all of it, or the copy of a study that is in a database.
STUDIES = STUDY, JOURNAL, STUDY_COPY = ("study.db", "study.journal", "study-copy.db")
# Files that only a run, a sweep or a search leaves: what lies beside them may be a stranger's, wherever it lies.
LEFT_BY_RUNS = (
    "summary.json",
    "metrics.jsonl",
    "multirun.yaml",
    "sweep.json",
    *STUDIES,
    "checkpoint.pt",
    "predictions.npz",
)


def targets_in(node: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """Yield every `_target_` of nested dicts and lists, configurations resolved, as its key with dots and its value."""
    if OmegaConf.is_config(node):
        node = OmegaConf.to_container(node, resolve=True)
    if isinstance(node, dict):
        for name, value in node.items():
            inner = f"{key}.{name}" if key else str(name)
            if inner.rpartition(".")[2] == TARGET:
                yield inner, value
            yield from targets_in(value, inner)
    elif isinstance(node, (list, tuple)):
        for index, value in enumerate(node):
            yield from targets_in(value, f"{key}[{index}]")


def targets_in_words(words: Iterable[str]) -> Iterator[tuple[str, Any]]:
    """Yield every `_target_` of a command's overrides, those of a sweep's choices too."""
    for override in OverridesParser.create().parse_overrides([*words]):
        values = [override._value]
        if override.is_sweep_override():
            values = [*override.sweep_iterator()] if override.is_discrete_sweep() else []
        for value in values:
            yield from targets_in({override.key_or_group: Override._convert_value(value)})  # type: ignore[arg-type]


def own_targets(folders: Iterable[Path], composed: Any = None, words: Sequence[str] = ()) -> frozenset[str]:
    """Return every target that the user's own configuration names.

    That is the YAML files in the `folders` on the search path, the configuration that was `composed` of them and of
    the command line, and the `words` typed now. A file that can't be read names nothing.
    """
    found = [*targets_in(composed), *targets_in_words(words)]
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    for path in (path for folder in folders for path in own_files(folder)):
        try:
            found += targets_in(yaml.load(path.read_text(), loader))
        except (OSError, ValueError, RecursionError, yaml.YAMLError):
            continue
    return frozenset(target for _, target in found if isinstance(target, str) and "$" not in target)


def own_files(folder: Path) -> Iterator[Path]:
    """Yield the YAML files in a folder of configurations, without those that runs have left somewhere in it."""
    for path, subfolders, names in os.walk(folder):
        if not {*names}.isdisjoint(LEFT_BY_RUNS):
            subfolders.clear()
            continue
        subfolders[:] = [name for name in subfolders if not name.startswith(".")]
        yield from (Path(path, name) for name in names if name.endswith((".yaml", ".yml")))


def config_folders() -> list[Path]:
    """Return the folders on the search path of the Hydra command that runs, the shipped or typed ones among them."""
    folders: list[Path] = []
    for source in HydraConfig.get().runtime.config_sources:
        if source.schema == "file":
            folders.append(Path(source.path))
        elif source.schema == "pkg" and source.provider != "hydra" and (spec := find_spec(source.path)):
            folders += map(Path, spec.submodule_search_locations or [])
    return folders


def refuse_foreign(stored: Any, allowed: frozenset[str], origin: str) -> None:
    """Raise `UserError` for the first `_target_` in the `stored` container that is not `allowed`.

    `origin` says where it is stored, as a message begins.
    """
    for key, target in targets_in(stored):
        word = "" if "[" in key else f"repeat {key}={target}, or "
        refuse_target(key, target, allowed, origin, f"{word}give --config-dir DIR with a YAML file that names it")


def refuse_foreign_words(stored: Iterable[str], allowed: frozenset[str], origin: str) -> None:
    """Raise `UserError` for the first `_target_` in `stored` overrides of a command that is not `allowed`."""
    for word in stored:
        for key, target in targets_in_words([word]):
            refuse_target(key, target, allowed, origin, f"repeat {shlex.quote(word)}")


def refuse_target(key: str, target: Any, allowed: frozenset[str], origin: str, way_on: str) -> None:
    """Raise `UserError` if the target is not `allowed`."""
    if isinstance(target, str) and target in allowed:
        return
    raise UserError(
        f"{origin} names code that your own configuration does not name: {key}={target}. Nothing was called. "
        f"If you trust it, {way_on}."
    )


def leads_out(word: str) -> bool:
    """Return whether an override chooses a file of configuration outside of the folders on the search path."""
    key, _, value = word.lstrip("+~").partition("=")
    return "." not in key and key != "init_from" and bool(re.search(r"(^|[,(\['\"])\s*/|\.\.", value))


def refuse_resolvers(stored: Any, origin: str) -> None:
    """Raise `UserError` for the first interpolation in `stored` that asks more than the value of another key.

    Such a one, as ${oc.env:NAME}, would read this machine's environment for whoever wrote the file.
    """
    if isinstance(stored, dict):
        stored = [*stored, *stored.values()]
    if isinstance(stored, (list, tuple)):
        for value in stored:
            refuse_resolvers(value, origin)
    elif isinstance(stored, str) and (found := re.search(r"\$\{[^{}]*(:|\$\{)", stored)):
        text = stored[found.start() :]
        raise UserError(f"{origin} has an interpolation that is not taken from a stored file: {text}")


def as_data(node: Any) -> Any:
    """Return nested dicts and lists with every string escaped, so that OmegaConf finds no interpolation in it."""
    if isinstance(node, dict):
        return {key: as_data(value) for key, value in node.items()}
    if isinstance(node, (list, tuple)):
        return [as_data(value) for value in node]
    return re.sub(r"(\\*)\$\{", r"\1\1\\${", node) if isinstance(node, str) else node
