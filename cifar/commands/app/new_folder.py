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

from cifar.experiment.typed.command_line import quote, words_of


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
        """Claim the run's folder."""
        claim_for(config, "run")

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Claim the sweep's folder and have every job's configuration name it."""
        folder = claim_for(config, "sweep")
        if folder is not None:
            with open_dict(config):
                config.hydra.overrides.hydra.append(f"hydra.sweep.dir={quote(str(folder))}")


def claim_for(config: DictConfig, kind: str) -> Path | None:
    """Claim what hydra.run.dir or hydra.sweep.dir asks for and put it there; None if it is not named by the time."""
    node = config.hydra[kind]
    is_continued = any(re.match(r"\+{0,2}resume=", word) for word in words_of(config.hydra))
    is_named_by_time = any("${now:" in line for line in OmegaConf.to_yaml(node).splitlines() if line.startswith("dir:"))
    if is_continued or not is_named_by_time:
        return None
    with suppress(OSError, OmegaConfBaseException):  # Hydra meets the same and says so
        folder = claim(Path(node.dir))
        with open_dict(config):
            node.dir = str(folder)
        return folder
    return None
