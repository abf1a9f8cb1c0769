"""What the experiment asks of a data set: one a file stands beside this module."""

from typing import Any, Protocol

from cifar.data.images import Images
from cifar.data.sources import cifar10, digits

# Checkpoints did not always hold the classes' names: those of the sources that there were then.
NAMES = {"cifar.data.sources.cifar10.CIFAR10": cifar10.NAMES, "cifar.data.sources.digits.Digits": digits.NAMES}


class Source(Protocol):
    """A data set: it checks its arguments when it is built, and reads, downloads or makes its images in `load`."""

    def load(self) -> Images:
        """Return the images, on the CPU."""


def known_class_names(target: Any) -> list[str]:
    """Return the classes' names of a source by its `_target_`, without its images; none of a later one."""
    return [*NAMES.get(str(target), ())]
