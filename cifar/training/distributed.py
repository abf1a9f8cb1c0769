"""One run in several processes, its ranks: `torchrun --nproc-per-node=4 run.py device=cuda`.

A batch is divided among the ranks, their gradients are summed, and so are all numbers that are logged. Gradients are
summed as one tensor after the backward pass, not by DistributedDataParallel: so each image weighs the same also where
the ranks do not divide a batch, a rank may have no image of the last batch at all, and a checkpoint has the keys of a
model on one device. What that gives up, exchanging gradients while others are computed, matters little for models of
this size.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from itertools import accumulate
from time import monotonic, sleep
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.distributed_c10d import PrefixStore
from torch.distributed.rendezvous import rendezvous

from cifar.base.errors import UserError

TIMEOUT_SECONDS = 600.0  # of waiting for another rank, after which that is an error
WORDS_SECONDS = 1.0  # for another rank to say why it has ended
SILENT_SECONDS = 3.0  # … and for rank 0 to do so
LOOK_SECONDS = 0.05
LAST_WORDS_SECONDS = 20.0  # for rank 0 to show that; torchrun kills what has not ended after 30


class GoneError(UserError):
    """Another rank has ended or does not answer."""

    status = "interrupted"


@dataclass(frozen=True)
class Ranks:
    """The processes of a run, of which this is number `rank`; alone it does nothing that costs time."""

    rank: int = 0
    count: int = 1

    @classmethod
    def current(cls) -> "Ranks":
        """Return those that `join` has brought together, or this process alone."""
        if not (dist.is_available() and dist.is_initialized()):
            return cls()
        return cls(dist.get_rank(), dist.get_world_size())

    @property
    def are_several(self) -> bool:
        """Whether there are others."""
        return self.count > 1

    @property
    def leads(self) -> bool:
        """Whether this process is the one that writes and shows."""
        return self.rank == 0

    def parts(self, num_images: int, num_parts: int) -> list[list[int]]:
        """Return for each of the parts into which a batch is divided how many images of it each rank has."""
        return [split(size, self.count) for size in split(num_images, min(num_parts, num_images))]

    def places(self, num_images: int, num_parts: int = 1) -> Tensor:
        """Return which of a batch's images this rank has, part after part, (n,)."""
        parts = self.parts(num_images, num_parts)
        ends = accumulate(sum(counts) for counts in parts)
        firsts = [end - sum(counts[self.rank :]) for end, counts in zip(ends, parts, strict=True)]
        return torch.cat([first + torch.arange(counts[self.rank]) for first, counts in zip(firsts, parts, strict=True)])

    def add(self, tensors: Sequence[Tensor]) -> None:
        """Replace each tensor by the sum over all ranks; those of one type go together."""
        if not self.are_several:
            return
        for dtype in dict.fromkeys(tensor.dtype for tensor in tensors):
            same = [tensor for tensor in tensors if tensor.dtype == dtype]
            flat = torch.cat([tensor.reshape(-1) for tensor in same])
            with all_there():
                dist.all_reduce(flat)
            for tensor, values in zip(same, flat.split([tensor.numel() for tensor in same]), strict=True):
                tensor.copy_(values.view_as(tensor))

    def add_gradients(self, weights: Sequence[Tensor], more: Tensor) -> None:
        """Sum the gradients of weights over all ranks, and the tensor `more`, (n,), beside.

        A weight that no rank used keeps no gradient.
        """
        if not self.are_several:
            return
        used = [weight.grad is not None for weight in weights]
        is_used = torch.tensor(used).to(more)
        for weight in weights:
            if weight.grad is None:  # of this rank: it may have had no images
                weight.grad = torch.zeros_like(weight)
        facts = torch.cat([more, is_used])
        self.add([facts, *(weight.grad for weight in weights if weight.grad is not None)])
        more.copy_(facts[: len(more)])
        if not all(used):
            for weight, num_users in zip(weights, facts[len(more) :].tolist(), strict=True):
                weight.grad = weight.grad if num_users else None

    def placed(self, column: Tensor, places: Tensor, num_images: int) -> Tensor:
        """Return all images' values, (num_images,), of which this rank has those at `places`, (n,)."""
        if not self.are_several:
            return column
        whole = column.new_zeros(num_images)
        whole[places.to(column.device)] = column
        self.add([whole])
        return whole

    def agreed(self, *values: int) -> list[int]:
        """Return the largest of each of the values that the ranks have; waits for all of them, but for no device."""
        if not self.are_several:
            return [*values]
        found = torch.tensor(values)
        with all_there():
            dist.all_reduce(found, op=dist.ReduceOp.MAX)
        return [int(value) for value in found]

    def take_leaders(self, tensors: Sequence[Tensor]) -> None:
        """Replace each tensor by that of rank 0."""
        for tensor in tensors if self.are_several else ():
            values = tensor.detach().contiguous()
            with all_there():
                dist.broadcast(values, src=0)
            tensor.detach().copy_(values)

    def gathered(self, value: Any) -> list[Any]:
        """Return the value of every rank."""
        values = [value] * self.count
        if self.are_several:
            with all_there():
                dist.all_gather_object(values, value)
        return values

    def told(self, value: Any = None) -> Any:
        """Return the value of rank 0, for whatever this one gives."""
        values = [value]
        if self.are_several:
            with all_there():
                dist.broadcast_object_list(values, src=0, device=torch.device("cpu"))
        return values[0]

    def own_randomness(self, seed: int, step: int = 0) -> None:
        """Let this rank draw other numbers than the others, as for dropout; rank 0 those of a run on one device."""
        if self.rank:
            state = np.random.SeedSequence([seed, step, self.rank]).generate_state(1, np.uint64)
            torch.manual_seed(int(state[0]))

    def refuse_device(self, device: torch.device, graph: bool) -> None:
        """Raise `UserError` for a device on which several ranks can't work."""
        if not self.are_several:
            return
        if graph:
            raise UserError(
                "device.graph=true is not possible in several processes: a recorded step can't wait for the gradients "
                "of others, whose share of a batch may differ. device.compile=true is."
            )
        if device.type == "mps":
            raise UserError("device=mps is not possible in several processes: there is one such device. device=cpu is.")
        if device.type == "cuda" and local_rank() >= torch.cuda.device_count():
            raise UserError(
                f"--nproc-per-node is more than the GPUs that torch finds here, {torch.cuda.device_count()}: give each "
                "process one of its own."
            )

    def leave_saying(self, text: str) -> None:
        """Leave the others with a reason that rank 0 shows, and wait for it to do so: torchrun then ends all."""
        store = words()
        store.set(f"end/{self.rank}", text)
        dist.destroy_process_group()  # by which the others notice
        come(store, "over", LAST_WORDS_SECONDS)

    def say_over(self) -> None:
        """Let those that wait know that rank 0 ends."""
        with suppress(RuntimeError):
            words().set("over", "")

    def reasons(self) -> list[str]:
        """Return why others have left, as far as they said so."""
        store, seconds = words(), WORDS_SECONDS
        found = []
        for key in [f"end/{rank}" for rank in range(1, self.count)]:
            if come(store, key, seconds):  # one that was killed says nothing
                found.append(store.get(key).decode())
            seconds = 0.0
        return found


def come(store: Any, key: str, seconds: float) -> bool:
    """Return whether somebody has left a word in the store, or does so within the seconds."""
    deadline = monotonic() + seconds
    with suppress(RuntimeError):  # the store is gone
        while not store.check([key]):
            if monotonic() > deadline:
                return False
            sleep(LOOK_SECONDS)
        return True
    return False


def is_to_speak() -> bool:
    """Return whether rank 0 has ended without a word, and this rank is the first of the others to find that."""
    store = words()
    with suppress(RuntimeError):  # the store is gone
        return not come(store, "over", SILENT_SECONDS) and store.add("noticed", 1) == 1
    return False


def words() -> Any:
    """Return where ranks leave words for each other, which torchrun keeps."""
    return dist.distributed_c10d._get_default_store()


ALONE = Ranks()


def split(size: int, count: int) -> list[int]:
    """Return the sizes of `count` parts, as `tensor_split` makes them."""
    return [size // count + (number < size % count) for number in range(count)]


@contextmanager
def all_there() -> Iterator[None]:
    """Raise `GoneError` if another rank is gone, or has not come for long."""
    try:
        yield
    except RuntimeError as error:
        reason = (str(error).splitlines() or [""])[0]
        raise GoneError(
            f"Another process of this run has ended, or was silent for {TIMEOUT_SECONDS:.0f} s, so all of them end "
            f"({reason[:200]})."
        ) from error


def local_rank() -> int:
    """Return which process of its machine this is."""
    return int(os.environ.get("LOCAL_RANK", 0))


def join() -> Ranks:
    """Meet the other ranks that torchrun started, each with a GPU of its own where there are some."""
    backend, timeout = "gloo", timedelta(seconds=TIMEOUT_SECONDS)
    if torch.cuda.is_available() and dist.is_nccl_available():
        backend = "cpu:gloo,cuda:nccl"
        if local_rank() < torch.cuda.device_count():
            torch.cuda.set_device(local_rank())
    with all_there():
        store, rank, count = next(rendezvous("env://", timeout=timeout))
        # torchrun may keep the store when it starts all ranks again, with what the earlier ones left in it
        store = PrefixStore(f"attempt {os.environ.get('TORCHELASTIC_RESTART_COUNT', 0)}", store)
        dist.init_process_group(backend, store=store, rank=rank, world_size=count, timeout=timeout)
    return Ranks.current()


def part() -> None:
    """Leave the other ranks."""
    if dist.is_initialized():
        dist.destroy_process_group()
