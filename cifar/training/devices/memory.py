"""Lack of memory: what a batch that does not fit can be changed to, and which of that leaves the results the same."""

import re
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from cifar.base.errors import UserError
from cifar.training.devices.device import Device


def has_batch_norm(model: nn.Module) -> bool:
    """Return whether the model averages over the images that go through it together."""
    return any(isinstance(module, _BatchNorm) for module in model.modules())


def ways_out(model: nn.Module, device: Device, accumulate: int) -> str:
    """Return what to try when a training batch does not fit, and what that changes."""
    parts = f"accumulate={2 * accumulate}"
    if not has_batch_norm(model):
        return f"{parts}, for the same result up to rounding in about half the memory, or a smaller batch_size"
    equal = "device.fast_conv=false, for the same result up to rounding in a little less memory; " * device.fast_conv
    return (
        f"{equal}{parts}, whose batch norm averages over each part, or a smaller batch_size, both of which are another "
        "experiment"
    )


@contextmanager
def explain_out_of_memory(key: str, num_images: int, ways: str = "") -> Iterator[None]:
    """Turn the device's lack of memory for a batch into a `UserError` that says what to try; "": a smaller batch."""
    try:
        yield
    except RuntimeError as error:
        if not isinstance(error, torch.OutOfMemoryError) and not re.search("out of memory|can't allocate", str(error)):
            raise
        raise UserError(
            f"{key}={num_images}: a batch does not fit into the memory. Try {ways or f'a smaller {key}'}."
        ) from error
