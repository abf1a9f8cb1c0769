"""The configuration file at which Hydra met an error: its path, the line, and what is wrong with it as a file.

Hydra's errors often don't say. What it was at is still in the local variables of the frames that the error passed.
"""

import codecs
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from traceback import walk_tb
from typing import Any

import yaml
from hydra._internal.config_repository import IConfigRepository
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.types import Override

from cifar.base.errors import UnknownKeyError, UserError
from cifar.experiment.config import Config

BOMS = {codecs.BOM_UTF8: "UTF-8 with a byte-order mark", codecs.BOM_UTF16_LE: "UTF-16", codecs.BOM_UTF16_BE: "UTF-16"}
PACKAGE_LINE = "# @package _global_"


def chain(error: BaseException) -> Iterator[BaseException]:
    """Yield the error and those that caused it; Hydra often raises without naming the cause."""
    link: BaseException | None = error
    while link is not None:
        yield link
        is_hydra = type(link).__module__.startswith("hydra.")
        link = link.__cause__ or (link.__context__ if is_hydra and not link.__suppress_context__ else None)


def find_local(error: BaseException, name: str, kind: type | None = None) -> Any:
    """Return the innermost local variable of that name (and type) which the error went past; None if there is none."""
    for link in reversed([*chain(error)]):
        for frame, _ in reversed([*walk_tb(link.__traceback__)]):
            value = frame.f_locals.get(name)
            if value is not None and (kind is None or isinstance(value, kind)):
                return value
    return None


def word_at(error: BaseException) -> Override | None:
    """Return the word of the command line at which Hydra was."""
    override: Override | None = find_local(error, "override", Override)
    return override if override is not None and override.input_line else None


def group_options(error: BaseException, group: str) -> list[str]:
    """Return the choices of a group in the configuration that was composed."""
    repository = find_local(error, "repo", IConfigRepository)
    return [] if repository is None else repository.get_group_options(group)


def file_at(error: BaseException) -> Path | None:
    """Return the file that was being read, or the one that the message of Hydra's calls by its group and name."""
    path = find_local(error, "full_path", str)
    if path is not None:
        return Path(path)
    named = re.match(r"In '([^']+)': ", str(error))
    repository = find_local(error, "repo", IConfigRepository)
    if named is None or repository is None:
        return None
    for source in repository.get_sources():
        path = Path(source.path, f"{named[1]}.yaml")
        if source.scheme() == "file" and path.is_file():
            return path
    return None


def shown(path: Path) -> str:
    """Return the path as a message names it: relative where that is shorter."""
    try:
        relative = os.path.relpath(path)
    except (OSError, ValueError):  # no working directory any more, or another drive
        return str(path)
    return min(str(path), relative, key=len)


def flaw(path: Path) -> str | None:
    """Return what is wrong with the file before its values count: its encoding, or where its values would go."""
    try:
        content = path.read_bytes()
    except OSError:
        return None
    for mark, name in BOMS.items():
        if content.startswith(mark):
            return f"{shown(path)} is {name}, which Hydra does not read. Save it as plain UTF-8."
    try:
        text = content.decode()
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        byte = content[error.start]
        return f"{shown(path)}, line {line}: byte 0x{byte:02x} is not UTF-8. Save the file as UTF-8."
    group = path.parent.name
    if group not in Config.__dataclass_fields__ and not re.search(r"(?m)^#\s*@package\s", text[:512]):
        return f"{shown(path)}: its values would go under {group!r}. Its first line must be: {PACKAGE_LINE}"
    return None


def with_line(path: Path, key: str) -> str:
    """Return the path and the line on which the file sets the key (with dots), if it can be found there."""
    try:
        node = yaml.compose(path.read_text(encoding="utf-8"), yaml.SafeLoader)
    except (OSError, ValueError, yaml.YAMLError, RecursionError):
        return shown(path)
    parts = key.split(".")
    for start in range(len(parts)):  # a file in a group has its values without the group's name
        if (line := line_of(node, parts[start:])) is not None:
            return f"{shown(path)}, line {line}"
    return shown(path)


def line_of(node: yaml.Node | None, parts: list[str]) -> int | None:
    """Return the line, from 1, on which the nested mapping sets the key; None if it does not."""
    for index, part in enumerate(parts):
        pairs = node.value if isinstance(node, yaml.MappingNode) else []
        found = [(name, value) for name, value in pairs if name.value == part]
        if not found:
            return None
        name, node = found[-1]
        if index == len(parts) - 1:
            return int(name.start_mark.line) + 1
    return None


@contextmanager
def placed_keys() -> Iterator[None]:
    """Say of a key that nothing takes in which file of the configuration it stands, if it stands in one."""
    try:
        yield
    except UnknownKeyError as error:
        if (place := place_of(error.key)) is None:
            raise
        raise UserError(f"{place}: {error}{way_to_leave_out(error.key)}") from None


def way_to_leave_out(key: str) -> str:
    """Return how to go without a key that a file sets for another choice of its group than the command line's."""
    group = key.partition(".")[0]
    chosen = [word for word in HydraConfig.get().overrides.task if word.startswith(f"{group}=")]
    if not chosen:
        return ""
    folders = [Path(source.path, group) for source in file_sources()]
    owners = sorted({path.stem for folder in folders for path in folder.glob("*.yaml") if line_in(path, key)})
    return f" It belongs to {group}={owners[0]}: with {chosen[-1]}, leave it out, '~{key}'." if owners else ""


def place_of(key: str) -> str | None:
    """Return the file, among those that Hydra chose for the job that runs, and the line on which it sets the key."""
    choices = HydraConfig.get().runtime.choices
    chosen = [f"{group}/{choice}" for group, choice in choices.items() if choice and "/" not in group]
    for name in (*reversed(chosen), str(HydraConfig.get().job.config_name)):
        for source in file_sources():
            path = Path(source.path, f"{name}.yaml")
            if path.is_file() and (line := line_in(path, key, is_group="/" in name)) is not None:
                return f"{shown(path)}, line {line}"
    return None


def file_sources() -> list[Any]:
    """Return the folders of configuration files that Hydra looks through."""
    return [source for source in HydraConfig.get().runtime.config_sources if source.schema == "file"]


def line_in(path: Path, key: str, is_group: bool = True) -> int | None:
    """Return the line on which the file sets the key (with its group); None if it does not."""
    text = path.read_text(encoding="utf-8")
    is_global = not is_group or re.search(rf"(?m)^{PACKAGE_LINE}", text)
    parts = key.split(".")
    return line_of(yaml.compose(text, yaml.SafeLoader), parts if is_global else parts[1:])


def yaml_message(error: yaml.YAMLError, path: Path | None) -> str:
    """Return what a YAML file can't have, with the place and the cure."""
    mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    name = shown(path or Path(getattr(mark, "name", "the file")))
    if mark is None:  # a character that YAML does not have
        reason = " ".join(str(error).split())
        return f"{name} is not possible as YAML: {reason}"
    problem = str(getattr(error, "problem", None) or getattr(error, "context", "")).rstrip(".")
    cure = ""
    if "'\\t'" in problem:
        cure = " Indent with spaces instead of tabs."
    elif "duplicate key" in problem:
        cure = " Keep one of them."
    return f"{name}, line {mark.line + 1}, column {mark.column + 1}: {problem}.{cure}"


def circle(error: BaseException) -> list[str]:
    """Return the configurations that name one another in their defaults for ever, each once."""
    names: list[str] = []
    for frame, _ in walk_tb(error.__traceback__):
        node = getattr(frame.f_locals.get("root"), "node", None)
        if node is not None and hasattr(node, "get_config_path"):
            names.append(node.get_config_path())
    if not names:
        return []
    last = names[-1]
    earlier = [index for index, name in enumerate(names[:-1]) if name == last]
    start = next((index for index in reversed(earlier) if names[index + 1] != last), None)
    return [last] if start is None else [*dict.fromkeys(names[start:])]
