"""What is made of a run when it is over: the page of it comes from a wing above this one, which is handed down."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cifar.tracking.predictions import Predictions

Keep = Callable[["Predictions"], None]
# Given a run's folder, the context of the whole run, which yields what takes the run's predictions.
PageMaker = Callable[[Path], AbstractContextManager[Keep]]


@contextmanager
def no_page(folder: Path) -> Iterator[Keep]:
    """Make nothing."""
    yield lambda predictions: None
