"""Choose the device and how it computes: `cifar run device=cuda device.precision=fp32 device.threads=8`."""

import ctypes
import os
import platform
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from time import perf_counter
from typing import Any

import torch
from torch import Tensor

from cifar.base.errors import UserError
from cifar.training.distributed import Ranks

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # glibc's malloc.h
BF16_PRODUCTS = ("avx512_bf16", "amx_bf16")  # instructions
DEFAULT_THREADS = torch.get_num_threads()  # before any run changed it


@dataclass(frozen=True)
class Device:
    """A torch device with the arithmetic that a run uses on it."""

    torch_device: torch.device
    precision: str  # fp32, bf16 or fp16
    channels_last: bool = False
    fast_conv: bool = False
    compile: bool = False
    graph: bool = False
    sync_batch_norm: bool = False

    @property
    def memory_format(self) -> torch.memory_format:
        """Return the layout of activations and convolution weights."""
        return torch.channels_last if self.channels_last else torch.contiguous_format

    def autocast(self) -> AbstractContextManager[object]:
        """Return the context for the forward pass."""
        dtype = torch.float16 if self.precision == "fp16" else torch.bfloat16
        return torch.autocast(self.torch_device.type, dtype, enabled=self.precision != "fp32")

    @property
    def needs_warm_up(self) -> bool:
        """Return whether the first step does what later ones need not: compile, record, choose convolutions."""
        return self.compile or self.torch_device.type == "cuda"

    def wait(self) -> None:
        """Wait until the device has done all its work."""
        if self.torch_device.type == "cuda":
            torch.cuda.synchronize()
        elif self.torch_device.type == "mps":
            torch.mps.synchronize()

    def stopwatch(self) -> Callable[[], float]:
        """Return what tells the seconds since now, of the device's own clock on a GPU."""
        if self.torch_device.type != "cuda":
            start = perf_counter()
            return lambda: perf_counter() - start
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()

        def seconds() -> float:
            end.record()
            end.synchronize()
            return float(begin.elapsed_time(end)) / 1000  # of milliseconds

        return seconds

    @contextmanager
    def side_stream(self) -> Iterator[None]:
        """Let a GPU work on a stream of its own, as it must before a recording."""
        if self.torch_device.type != "cuda":
            yield
            return
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            yield
        torch.cuda.current_stream().wait_stream(stream)

    def record(self, work: Callable[[], Tensor]) -> tuple[Tensor, Callable[[], object]]:
        """Return where the result of `work` appears and what does the work: a CUDA graph's replay.

        A processor, which has no graphs, calls `work` itself.
        """
        if self.torch_device.type != "cuda":
            result = work()
            return result, lambda: result.copy_(work())
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            result = work()
        return result, graph.replay

    def random_state(self) -> dict[str, Any]:
        """Return the state of torch's generators: the CPU's, those of all CUDA devices, and that of this MPS device.

        Of several ranks each has that of its own CUDA device only.
        """
        is_one_of_many = torch.cuda.is_available() and Ranks.current().are_several
        states = [torch.cuda.get_rng_state()] if is_one_of_many else torch.cuda.get_rng_state_all()
        state: dict[str, Any] = {"cpu": torch.get_rng_state(), "cuda": states}
        return state | ({"mps": torch.mps.get_rng_state()} if self.torch_device.type == "mps" else {})

    def set_random_state(self, state: dict[str, Any]) -> None:
        """Put the generators back, as far as the devices are there."""
        torch.set_rng_state(state["cpu"])
        if len(state["cuda"]) == 1 and torch.cuda.is_available():
            torch.cuda.set_rng_state(state["cuda"][0])
        elif len(state["cuda"]) == torch.cuda.device_count():
            torch.cuda.set_rng_state_all(state["cuda"])
        if "mps" in state and self.torch_device.type == "mps":
            torch.mps.set_rng_state(state["mps"])

    def hardware_name(self) -> str:
        """Return the model of the GPU, or that of the processor with the instructions that torch uses."""
        if self.torch_device.type == "cuda":
            return torch.cuda.get_device_name()
        return f"{processor_name()}, {torch.backends.cpu.get_cpu_capability()}"

    def describe(self) -> str:
        """Return the device and its arithmetic in a few words."""
        num_threads = torch.get_num_threads()
        threads = f", {num_threads} thread{'s' if num_threads > 1 else ''}" if self.torch_device.type == "cpu" else ""
        return f"{self.torch_device.type} ({self.hardware_name()}{threads}, {self.precision})"


def find_device(name: str) -> str:
    """Return `name`, or for "auto" the first that there is of cuda, mps and cpu; raise `UserError` if it is absent."""
    available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    kinds = [kind for kind, is_there in available.items() if is_there]
    if name == "auto":
        return kinds[0]
    if name not in kinds:
        raise UserError(
            f"device={name} is not possible: torch {torch.__version__} finds none here. "
            f"There is: auto, {', '.join(kinds)}."
        )
    return name


def set_up_device(
    name: str,
    precision: str,
    channels_last: bool | None,
    fast_conv: bool | None,
    compile: bool,
    threads: int | None,
    graph: bool = False,
    deterministic: bool = False,
    sync_batch_norm: bool = False,
) -> Device:
    """Return the device called `name`, and set for the whole process what is not a tensor's own affair.

    That is the number of CPU threads and whether kernels have to be deterministic. "auto" and None take the choice
    described in conf/device/auto.yaml; `fast_conv` matters on a CPU only, `graph` needs CUDA. Raises `UserError` if
    there is no such device.
    """
    if deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # before the first product on a GPU
    if deterministic != torch.are_deterministic_algorithms_enabled():  # asked first, as setting it imports a compiler
        torch.use_deterministic_algorithms(deterministic, warn_only=True)
    torch.backends.cudnn.benchmark = not deterministic
    torch.set_num_threads(threads or DEFAULT_THREADS)
    device = choose_device(name, precision, channels_last, fast_conv, compile, graph, sync_batch_norm)
    if device.torch_device.type == "cpu":
        keep_memory()
    return device


def choose_device(
    name: str,
    precision: str,
    channels_last: bool | None = None,
    fast_conv: bool | None = None,
    compile: bool = False,
    graph: bool = False,
    sync_batch_norm: bool = False,
) -> Device:
    """Return the device called `name`, and change nothing of the process; raise `UserError` if there is none."""
    name = find_device(name)
    if graph and name != "cuda":
        raise UserError(f"device.graph=true is not possible on {name}: CUDA graphs need device=cuda.")
    return Device(
        torch_device=torch.device(name),
        precision=choose_precision(name, precision),
        channels_last=name in ("cpu", "cuda") if channels_last is None else channels_last,
        fast_conv=name == "cpu" and fast_conv is not False,
        compile=compile,
        graph=graph,
        sync_batch_norm=sync_batch_norm,
    )


def choose_precision(name: str, precision: str) -> str:
    """Return fp32, bf16 or fp16 for the device called `name`.

    "auto" is bf16 on CUDA. "bf16_or_fp32" is bf16 on a CPU too, if that has instructions for products of such numbers.
    """
    if precision not in ("auto", "bf16_or_fp32"):
        return precision
    is_fast = name == "cuda" or (precision == "bf16_or_fp32" and name == "cpu" and multiplies_bf16())
    return "bf16" if is_fast else "fp32"


def multiplies_bf16() -> bool:
    """Return whether this processor multiplies bf16 numbers at once; others take several steps and are slow."""
    if hasattr(torch.cpu, "get_capabilities"):  # of later torches
        capabilities = torch.cpu.get_capabilities()
        return any(capabilities.get(name) for name in BF16_PRODUCTS)
    return bool({*cpu_info("flags").split()} & {*BF16_PRODUCTS})


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
    return cpu_info("model name") or platform.processor() or platform.machine()


@cache  # a file that says the same at every step
def cpu_info(key: str) -> str:
    """Return what Linux tells of the first processor, "" if there is nothing."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith(key):
                return line.partition(":")[2].strip()
    except OSError:  # not Linux
        pass
    return ""
