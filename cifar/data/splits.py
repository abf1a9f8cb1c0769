"""Choose the images that are held out: the digits' test set, and the validation set of `data.val_size`."""

import torch
from torch import Tensor


def stratified_split(labels: Tensor, size: int, seed: int) -> tuple[Tensor, Tensor]:
    """Return the indices of the images kept and of the `size` images held out, each in ascending order.

    Every class gives its share of `size`, rounded by largest remainder; within a class the choice is random and fixed
    by `seed`. `labels` is (N,) with 0 <= size <= N.
    """
    counts = torch.bincount(labels)
    shares = counts * size
    quotas = shares // len(labels)
    remainders = shares % len(labels)
    quotas[torch.argsort(remainders, descending=True, stable=True)[: size - int(quotas.sum())]] += 1
    generator = torch.Generator().manual_seed(seed)
    held_out = torch.zeros(len(labels), dtype=torch.bool)
    for label, quota in enumerate(quotas.tolist()):
        members = torch.nonzero(labels == label).flatten()
        held_out[members[torch.randperm(len(members), generator=generator)[:quota]]] = True
    return torch.nonzero(~held_out).flatten(), torch.nonzero(held_out).flatten()
