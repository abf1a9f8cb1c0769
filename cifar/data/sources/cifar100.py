"""CIFAR-100 (Krizhevsky 2009): `cifar run data=cifar100`, `data.source.labels=coarse` for its 20 superclasses."""

from collections.abc import Sequence
from dataclasses import dataclass

from cifar.base.errors import UserError
from cifar.data.files.batches import Batches, load_batches
from cifar.data.files.downloads import refuse_one_mirror
from cifar.data.images import Images

FOLDER = "cifar-100-python"
BATCHES = {
    "fine": Batches("CIFAR-100", FOLDER, "CIFAR100", first="train", stem="cifar100"),
    "coarse": Batches(
        "CIFAR-100", FOLDER, "CIFAR100", "train", "cifar100-coarse", labels=("coarse_labels", "coarse_label_names")
    ),
}


@dataclass(frozen=True)
class CIFAR100:
    """CIFAR-100's python batches under `root`, downloaded from the first of `mirrors` that delivers if absent.

    `labels` are "fine", 100 classes, or "coarse", the 20 superclasses of five each. Unless the folder `cache` is None,
    the decoded images are kept in it.
    """

    root: str
    labels: str
    mirrors: Sequence[str]
    cache: str | None

    def __post_init__(self) -> None:
        refuse_one_mirror(self.mirrors)
        if self.labels not in BATCHES:
            raise UserError(
                f"data.source.labels={self.labels!r} is not possible: it takes one of {', '.join(BATCHES)}."
            )

    def load(self) -> Images:
        """Return the verified images; raise `UserError` naming the file that is missing, damaged or unwritable."""
        return load_batches(BATCHES[self.labels], self.root, self.mirrors, self.cache)
