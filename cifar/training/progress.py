"""What a terminal shows while a loop goes on."""

from collections.abc import Iterable

from torch import Tensor
from tqdm import tqdm

from cifar.training.distributed import Ranks

Batch = tuple[Tensor, Tensor]  # inputs (B, C, H, W) and labels (B,)


def progress_bar(batches: Iterable[Batch], title: str, num_batches: int, num_done: int = 0) -> "tqdm[Batch]":
    """Return the batches behind a bar that vanishes at the end and is not shown where stderr is not a terminal."""
    return tqdm(
        batches,
        desc=title,
        total=num_batches,
        initial=num_done,
        unit="step",
        leave=False,
        dynamic_ncols=True,
        disable=None if Ranks.current().leads else True,
    )


def outlook(loss: float, seconds: float, num_done: int, num_left: int) -> str:
    """Return what a progress bar says of the whole run: its loss, and the time left if the steps go on as they did."""
    return f"loss {loss:.4f}, the run ends in {tqdm.format_interval(seconds / num_done * num_left)}"
