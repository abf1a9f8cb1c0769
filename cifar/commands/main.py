"""One command with many verbs: `cifar VERB …`; `python -m cifar VERB …` is the same.

A verb's module is imported when it is called, so that `cifar --help` answers at once.
"""

import difflib
import os
import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.metadata import version

VERBS = {
    "run": "train and evaluate one configuration, or with -m many",
    "resume": "go on with a run or a sweep that was cut",
    "watch": "look at runs and sweeps while they run",
    "report": "report on a sweep, finished or not, or on several together",
    "predict": "say what is on pictures, with a trained run",
    "export": "write a trained run to one file: ONNX, torch.export or safetensors",
    "card": "write a run's model card, with its numbers and limits",
    "evaluate": "evaluate a trained run again, and make its page",
    "compare": "compare two trained runs on the same test images",
    "tune": "search for good values with Optuna",
    "lr-find": "find the range of learning rates at which a configuration learns",
    "bench": "compare a training step with the loop that everybody writes",
    "speedrun": "time recipes over many seeds, compilation apart",
    "workspace": "lay out a Weights & Biases project",
}
MEASURING = ("lr-find", "bench", "speedrun")  # their modules stand in a room of their own
HELP = f"""CIFAR-10 experiments from one command.

  cifar run model=resnet50 lr=0.01
  cifar run -m lr=0.001,0.01,0.1 data.val_size=5000
  cifar VERB --help

{chr(10).join(f"  {verb:<10} {line}" for verb, line in VERBS.items())}"""


def main(words: Sequence[str] | None = None) -> None:
    """Do what the verb among the `words` says; those of the command line unless they are given."""
    verb, *rest = [*(sys.argv[1:] if words is None else words)] or ["--help"]
    if verb in ("-h", "--help", "help"):
        print(HELP)
    elif verb == "--version":
        print(f"cifar-framework {version('cifar-framework')}")
    elif verb in VERBS:
        sys.argv = [f"cifar {verb}", *rest]
        if os.getcwd() not in sys.path:
            sys.path.insert(0, os.getcwd())  # parts of the user's own are found here, as `python` finds them
        wait_briefly()
        room = "measuring." if verb in MEASURING else ""
        import_module(f"cifar.commands.{room}{verb.replace('-', '_')}").command()
    else:
        guess = difflib.get_close_matches(verb, VERBS, n=1)
        hint = f" Did you mean {guess[0]!r}?" if guess else " Did you mean cifar run?" if "=" in verb else ""
        sys.exit(f"There is no verb {verb!r}.{hint} There is {', '.join(VERBS)}; cifar --help says more.")


def wait_briefly() -> None:
    """Let torch's threads sleep soon when they wait for each other, unless the user's environment says how they wait.

    They wait at the end of every operation. By default they keep their cores busy meanwhile, and where other programs
    want these too, the one that all wait for does not get on. It counts for what imports torch after this.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "3000")  # turns of a loop, some microseconds; 300,000 by default
