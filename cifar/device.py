"""Choose the device and how it computes: `python run.py device=cuda device.precision=fp32 device.threads=8`."""

import ctypes
import platform
import re
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from cifar.errors import UserError

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # glibc's malloc.h
DEFAULT_THREADS = torch.get_num_threads()  # before any run changed it


@dataclass(frozen=True)
class Device:
    """A torch device with the arithmetic that a run uses on it."""

    torch_device: torch.device
    precision: str  # fp32 or bf16
    channels_last: bool
    fast_conv: bool
    compile: bool

    @property
    def memory_format(self) -> torch.memory_format:
        """Return the layout of activations and convolution weights."""
        return torch.channels_last if self.channels_last else torch.contiguous_format

    def autocast(self) -> AbstractContextManager[object]:
        """Return the context for the forward pass."""
        return torch.autocast(self.torch_device.type, torch.bfloat16, enabled=self.precision == "bf16")

    def random_state(self) -> dict[str, Any]:
        """Return the state of torch's generators: the CPU's, those of all CUDA devices, and that of this MPS device."""
        state: dict[str, Any] = {"cpu": torch.get_rng_state(), "cuda": torch.cuda.get_rng_state_all()}
        return state | ({"mps": torch.mps.get_rng_state()} if self.torch_device.type == "mps" else {})

    def set_random_state(self, state: dict[str, Any]) -> None:
        """Put the generators back, as far as the devices are there."""
        torch.set_rng_state(state["cpu"])
        if len(state["cuda"]) == torch.cuda.device_count():
            torch.cuda.set_rng_state_all(state["cuda"])
        if "mps" in state and self.torch_device.type == "mps":
            torch.mps.set_rng_state(state["mps"])

    def hardware_name(self) -> str:
        """Return the model of the GPU or processor."""
        return torch.cuda.get_device_name() if self.torch_device.type == "cuda" else processor_name()

    def describe(self) -> str:
        """Return the device and its arithmetic in a few words."""
        num_threads = torch.get_num_threads()
        threads = f", {num_threads} thread{'s' if num_threads > 1 else ''}" if self.torch_device.type == "cpu" else ""
        return f"{self.torch_device.type} ({self.hardware_name()}{threads}, {self.precision})"


def set_up_device(
    name: str,
    precision: str,
    channels_last: bool | None,
    fast_conv: bool | None,
    compile: bool,
    threads: int | None,
) -> Device:
    """Return the device called `name`, and set the number of CPU threads for the whole process.

    "auto" and None take the choice described in conf/device/auto.yaml; `fast_conv` matters on a
    CPU only. Raises `UserError` if there is no such device.
    """
    torch.set_num_threads(threads or DEFAULT_THREADS)
    available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if name == "auto":
        name = next(kind for kind, is_there in available.items() if is_there)
    if not available[name]:
        others = ", ".join(kind for kind, is_there in available.items() if is_there)
        raise UserError(
            f"device={name} is not possible: torch {torch.__version__} finds none here. There is: auto, {others}."
        )
    if name == "cpu":
        keep_memory()
    return Device(
        torch_device=torch.device(name),
        precision=("bf16" if name == "cuda" else "fp32") if precision == "auto" else precision,
        channels_last=name in ("cpu", "cuda") if channels_last is None else channels_last,
        fast_conv=name == "cpu" and fast_conv is not False,
        compile=compile,
    )


def keep_memory() -> None:
    """Let glibc keep the memory of activations for the next step instead of returning it to the system every time.

    Page faults take a large share of a step otherwise. Elsewhere than on glibc nothing is done.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return
    mallopt(M_MMAP_MAX, 0)
    mallopt(M_TRIM_THRESHOLD, -1)


def processor_name() -> str:
    """Return the processor's model as the system calls it."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:  # not Linux
        pass
    return platform.processor() or platform.machine()


@contextmanager
def explain_out_of_memory(key: str, num_images: int, accumulate: int = 1) -> Iterator[None]:
    """Turn the device's lack of memory for a batch into a `UserError` that says what to change."""
    try:
        yield
    except RuntimeError as error:
        if not isinstance(error, torch.OutOfMemoryError) and not re.search("out of memory|can't allocate", str(error)):
            raise
        way_out = "a smaller eval_batch_size" if key == "eval_batch_size" else (
            f"accumulate={2 * accumulate}, which gives the same result up to rounding in half the memory, "
            "or a smaller batch_size"
        )  # fmt: skip
        raise UserError(f"{key}={num_images}: a batch does not fit into the memory. Try {way_out}.") from error
