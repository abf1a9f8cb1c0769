"""CIFAR-10 experiments from Python: `compose`, `train`, `load_run` to use what was trained, `read_sweep` of many.

The names are loaded when they are asked for, so that `import cifar` takes no time.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cifar.experiment.python import compose as compose
    from cifar.reports.python import train as train
    from cifar.reports.runs.loading import load_run as load_run
    from cifar.reports.runs.reading import read_sweep as read_sweep

WHERE = {
    "compose": "cifar.experiment.python",
    "train": "cifar.reports.python",
    "load_run": "cifar.reports.runs.loading",
    "read_sweep": "cifar.reports.runs.reading",
}
__all__ = ["compose", "load_run", "read_sweep", "train"]


def __getattr__(name: str) -> Any:
    if name not in WHERE:
        raise AttributeError(f"module 'cifar' has no attribute {name!r}")
    return getattr(import_module(WHERE[name]), name)
