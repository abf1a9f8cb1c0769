"""A folder of its own for every command that was given none, also when several are started within one second.

Hydra names such a folder by the time. conf/config.yaml has Hydra call `NewFolder` before it makes one.
"""

import re
from contextlib import suppress
from pathlib import Path
from typing import Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from cifar.base.errors import Passing, UserError
from cifar.base.nested import flatten
from cifar.experiment.config import AUTO
from cifar.experiment.typed.command_line import quote, words_of

REFERENCE = re.compile(r"\$\{([\w/]+(?:\.[\w/]+)*)\}")


def claim(folder: Path) -> Path:
    """Make the folder, or the first of FOLDER-1, FOLDER-2, … that nobody has made, and return it."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    free, number = folder, 0
    while True:
        try:
            free.mkdir()
        except FileExistsError:
            number += 1
            free = folder.with_name(f"{folder.name}-{number}")
        else:
            return free


class NewFolder(Callback):
    """Claim the folder of a run or a sweep that is named by the time; one that is to be continued stays what it is."""

    def on_run_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Claim the run's folder; with resume=auto it must be one that is the same every time."""
        if unresolved(config).get("resume") == AUTO and is_named_by_time(config, "run"):
            error = UserError("resume=auto needs a folder that is the same every time: add hydra.run.dir=outputs/NAME.")
            raise Passing(error)  # Hydra makes a warning of what is an Exception
        claim_for(config, "run")

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Claim the sweep's folder and have every job's configuration name it."""
        folder = claim_for(config, "sweep")
        if folder is not None:
            with open_dict(config):
                config.hydra.overrides.hydra.append(f"hydra.sweep.dir={quote(str(folder))}")


def is_named_by_time(config: DictConfig, kind: str) -> bool:
    """Return whether hydra.run.dir or hydra.sweep.dir, or what these refer to, holds the time."""
    texts = unresolved(config)
    waiting, seen = [f"hydra.{kind}.dir"], set[str]()
    while waiting:
        key = waiting.pop()
        text = str(texts.get(key))
        if "${now:" in text:
            return True
        seen.add(key)
        waiting += {*REFERENCE.findall(text)} - seen
    return False


def unresolved(config: DictConfig) -> dict[str, Any]:
    """Return the values by their keys with dots, with their interpolations as they are."""
    container = OmegaConf.to_container(config)
    assert isinstance(container, dict)
    return flatten({str(key): value for key, value in container.items()})


def claim_for(config: DictConfig, kind: str) -> Path | None:
    """Claim what hydra.run.dir or hydra.sweep.dir asks for and put it there; None if it is not named by the time."""
    node = config.hydra[kind]
    is_continued = any(re.match(r"\+{0,2}resume=", word) for word in words_of(config.hydra))
    if is_continued or not is_named_by_time(config, kind):
        return None
    with suppress(OSError, OmegaConfBaseException):  # Hydra meets the same and says so
        folder = claim(Path(node.dir))
        with open_dict(config):
            node.dir = str(folder)
        return folder
    return None
