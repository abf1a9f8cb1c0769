"""Tensors of fixed values that every batch needs."""

from functools import lru_cache
from typing import Any

import torch
from torch import Tensor


@lru_cache(maxsize=32)
def constant(values: tuple[Any, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    """Return the nested tuples of numbers as a tensor, the same one each time: copying would wait for a GPU."""
    return torch.tensor(values, dtype=dtype, device=device)
