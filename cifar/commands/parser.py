"""The words of a verb that are not Hydra's: its help begins with examples."""

import argparse
from typing import Any


class Parser(argparse.ArgumentParser):
    """The parser of `cifar VERB`; `examples` are whole commands, each with what it does."""

    def __init__(self, verb: str, what: str, examples: str, **options: Any) -> None:
        super().__init__(prog=f"cifar {verb}", **options)
        self.what, self.examples = what, examples

    def format_help(self) -> str:
        """Return the help: what the verb does, examples, then every word."""
        return f"{self.what}\n\n{self.examples}\n\n{super().format_help()}"
