"""The words of a verb that are not Hydra's: its help begins with examples."""

import argparse
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cifar.experiment.trained import TrainedRun


class Parser(argparse.ArgumentParser):
    """The parser of `cifar VERB`; `examples` are whole commands, each with what it does."""

    def __init__(self, verb: str, what: str, examples: str, **options: Any) -> None:
        super().__init__(prog=f"cifar {verb}", **options)
        self.what, self.examples = what, examples

    def format_help(self) -> str:
        """Return the help: what the verb does, examples, then every word."""
        return f"{self.what}\n\n{self.examples}\n\n{super().format_help()}"

    def add_run_options(self) -> None:
        """Add what every verb takes that loads a run."""
        self.add_argument("--best", action="store_true", help="of a sweep's folder: its best run by validation images")
        self.add_argument("--config-dir", metavar="DIR", help="a folder of your own YAML files, as for cifar run")


def split_words(texts: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return the paths among the texts, and the words KEY=VALUE, which no file is called."""
    words = [text for text in texts if re.match(r"\+{0,2}[\w.@/]+=", text) and not Path(text).exists()]
    return [text for text in texts if text not in words], words


def load(path: str, words: Sequence[str], options: argparse.Namespace) -> "TrainedRun":
    """Return the run that a verb's words name."""
    from cifar.reports.runs.loading import load_run

    return load_run(path, words, options.config_dir, best=options.best)
