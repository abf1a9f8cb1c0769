"""CIFAR-10 (Krizhevsky 2009): `cifar run data=cifar10`."""

from collections.abc import Sequence
from dataclasses import dataclass

from cifar.data.files.batches import Batches, load_batches
from cifar.data.files.downloads import refuse_one_mirror
from cifar.data.images import Images

# The names in the order of the labels, as batches.meta has them.
NAMES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
BATCHES = Batches("CIFAR-10", "cifar-10-batches-py", "CIFAR10", first="data_batch_1", stem="cifar10")


@dataclass(frozen=True)
class CIFAR10:
    """CIFAR-10's python batches under `root`, downloaded from the first of `mirrors` that delivers if absent.

    Unless the folder `cache` is None, the decoded images are kept in it, so that the next process starts sooner.
    """

    root: str
    mirrors: Sequence[str]
    cache: str | None = None

    def __post_init__(self) -> None:
        refuse_one_mirror(self.mirrors)

    def load(self) -> Images:
        """Return the verified images; raise `UserError` naming the file that is missing, damaged or unwritable."""
        return load_batches(BATCHES, self.root, self.mirrors, self.cache)
