"""The interface for Python programs and notebooks: `cifar.compose` and `cifar.train`.

Nothing global is changed: no signal handlers, no `sys.argv`, no working directory.
"""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from cifar.base.in_place import run_log
from cifar.base.locks import locked
from cifar.base.paths import absolute
from cifar.base.run_folder import holds_run, read_summary, refuse_used_folder
from cifar.experiment.after import PageMaker, no_page
from cifar.experiment.config import AUTO, check, config_hash, resolve
from cifar.experiment.restore import finished, restore
from cifar.experiment.typed.compose import compose_words
from cifar.experiment.typed.search_path import as_word


def compose(words: Sequence[str] = (), config_dir: str | Path | None = None) -> DictConfig:
    """Return the configuration that `cifar run WORDS` would have; `config_dir` is what stands behind --config-dir.

    Raises `UserError`, or Hydra's own error, for a word that is not possible.
    """
    searched = [] if config_dir is None else [as_word([str(absolute(str(config_dir)))])]
    cfg, _ = compose_words([*searched, *words])
    check(cfg)
    return cfg


def train(cfg: DictConfig, folder: str | Path, make_page: PageMaker = no_page) -> dict[str, Any]:
    """Do what `cifar.train` says, with what makes the run's page.

    With `cfg.resume = "auto"` a run that was cut goes on, and one that is done is not made again. Raises `UserError`
    for a mistake, and `DivergedError` after testing the last state; the summary is written all the same.
    """
    from cifar.experiment.run import run  # imports torch, which takes seconds

    check(cfg)
    path = absolute(str(folder))
    with locked(path), run_log(path), everything_logged():
        checkpoint = None
        if cfg.resume != AUTO:
            refuse_used_folder(path, f"cfg.resume = {AUTO!r}")
        elif holds_run(path):
            if finished(path, config_hash(resolve(cfg))):
                return read_summary(path)
            cfg, checkpoint = restore(cfg, path, [])
        stored = path / ".hydra"
        stored.mkdir(exist_ok=True)
        OmegaConf.save(cfg, stored / "config.yaml")
        flags = ["--config-path", str(stored), "--config-name", "config"]  # with these the command makes it again
        origin: dict[str, Any] = {"job": None, "overrides": [], "flags": flags, "choices": {}}
        run(cfg, path, "/".join(path.parts[-2:]), None, checkpoint, origin, make_page=make_page)
    return read_summary(path)


@contextmanager
def everything_logged() -> Iterator[None]:
    """Have this package log what a command would print, whatever the program's own level is."""
    logger = logging.getLogger("cifar")
    before = logger.level
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.setLevel(before)
