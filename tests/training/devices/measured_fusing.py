"""Two ways to fewer passes that do not pay on a CPU: python -m tests.training.devices.measured_fusing [ROUNDS]

The end of a residual block (batch norm, sum, ReLU) compiled by torch.compile beside eager, and the two 1×1 convolutions
that read a block's input as one product with concatenated weights beside two; forward and backward, in turn, at
resnet50's shapes of 100 images. Prints the lines of docs/speed.md: ms, and the ratio's median and range.
"""

import sys
from collections.abc import Callable
from statistics import median
from time import perf_counter

import torch
from torch import Tensor, nn
from torch.nn import functional as F

ENDS = ((64, 16), (256, 16), (512, 8), (1024, 4))  # channels and size of the map
PAIRS = ((64, 64, 256, 16), (256, 128, 512, 8), (512, 256, 1024, 4))  # input, two outputs, size of the map


def compare(title: str, usual: Callable[[], None], other: Callable[[], None], rounds: int) -> None:
    """Let the two take turns, after two rounds to warm up, and print what they took."""
    taken: list[list[float]] = [[], []]
    for number in range(rounds + 2):
        for work, seconds in zip((usual, other), taken, strict=True):
            start = perf_counter()
            work()
            if number >= 2:
                seconds.append(perf_counter() - start)
    ratios = [one / two for one, two in zip(*taken, strict=True)]
    ms = [1000 * median(seconds) for seconds in taken]
    spread = f"{median(ratios):.2f} ({min(ratios):.2f}–{max(ratios):.2f})"
    print(f"| {title} | {ms[0]:.1f} | {ms[1]:.1f} | {spread} |", flush=True)


def compare_ends(channels: int, size: int, dtype: torch.dtype, rounds: int) -> None:
    """Compare the end of a residual block, eager and compiled."""
    inputs, shortcut, grad = (
        torch.randn(100, channels, size, size, dtype=dtype).contiguous(memory_format=torch.channels_last)
        for _ in range(3)
    )
    inputs.requires_grad_()
    norm = nn.BatchNorm2d(channels)

    def end(inputs: Tensor, shortcut: Tensor) -> Tensor:
        return F.relu(norm(inputs) + shortcut)

    def both_ways(form: Callable[[Tensor, Tensor], Tensor]) -> None:
        inputs.grad = norm.weight.grad = norm.bias.grad = None
        form(inputs, shortcut).backward(grad)

    compiled = torch.compile(end)
    title = f"batch norm, sum and ReLU, {channels} channels, {size}×{size}, {str(dtype)[6:]}: eager, compiled"
    compare(title, lambda: both_ways(end), lambda: both_ways(compiled), rounds)


def compare_pairs(channels: int, first: int, second: int, size: int, dtype: torch.dtype, rounds: int) -> None:
    """Compare two products of the same rows with one whose result is divided."""
    rows = torch.randn(100 * size * size, channels, dtype=dtype, requires_grad=True)
    weights = [torch.randn(width, channels, dtype=dtype, requires_grad=True) for width in (first, second)]
    grads = [torch.randn(len(rows), width, dtype=dtype) for width in (first, second)]

    def backward(outputs: list[Tensor]) -> None:
        rows.grad = weights[0].grad = weights[1].grad = None
        torch.autograd.backward(outputs, grads)

    def two() -> None:
        backward([F.linear(rows, weight) for weight in weights])

    def one() -> None:
        backward([part.contiguous() for part in F.linear(rows, torch.cat(weights)).split([first, second], 1)])

    title = f"1×1, {channels} → {first} and {second}, {size}×{size}, {str(dtype)[6:]}: two products, one"
    compare(title, two, one, rounds)


def main() -> None:
    """Measure both in float32 and bf16."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 11
    for dtype in (torch.float32, torch.bfloat16):
        for channels, size in ENDS:
            compare_ends(channels, size, dtype, rounds)
        for shape in PAIRS:
            compare_pairs(*shape, dtype, rounds)


if __name__ == "__main__":
    main()
