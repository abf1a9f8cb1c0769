"""Compare a training step here with the loop that everybody writes: cifar bench --model resnet50 vgg16

Both run in one process, in turn, so that whatever else the machine does slows both. Each has the same model, batch
size, data and augmentation. "plain" has torchvision's transforms on PIL images, a DataLoader, an eager NCHW float32
model and an Adam without options; "run.py" has what `cifar run` would use on the device.
"""

import multiprocessing
import os
import resource
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass
from datetime import date
from pathlib import Path
from statistics import mean, median
from time import perf_counter
from typing import Any

import torch
from omegaconf import DictConfig
from PIL import Image
from torch import Tensor, nn, optim
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset
from torch.utils.flop_counter import FlopCounterMode
from torchvision import transforms

from cifar.base import signals
from cifar.base.errors import UserError
from cifar.base.run_folder import git_commit, library_versions, prepare_results
from cifar.commands.measuring.earlier import MIN_ROUNDS, add_result, compare_with, read_results
from cifar.commands.messages.exits import guard
from cifar.commands.parser import Parser
from cifar.data.images import Images, checked
from cifar.experiment.building import build_parts, create
from cifar.experiment.config import check
from cifar.experiment.loaders import build_loaders
from cifar.experiment.run import new_trainer
from cifar.experiment.typed.compose import compose_words
from cifar.tracking.tracking import RunInfo
from cifar.training.devices.device import Device, set_up_device

MATMUL_SIZE, MATMUL_REPEATS = {"cpu": 2048, "cuda": 8192}, 10  # large enough to be at the device's full rate
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
WARM_UP_STEPS = 3
PLAIN, OURS = "plain", "run.py"
LOG = Path("outputs/bench.jsonl")

EXAMPLES = """\
  cifar bench --model resnet50 vgg16                       on this machine's processor or GPU
  cifar bench --model resnet18 --rounds 9 --log b.jsonl    more rounds, and the figures in a file of your own
  cifar bench --rounds 9 --against outputs/bench.jsonl     … and what became slower since the last time"""


@dataclass(frozen=True)
class Timing:
    """One turn of one contestant: seconds, and those of them in which it waited for its batches."""

    total: float
    loading: float


@dataclass(frozen=True)
class Contestant:
    """Has batches without end, takes a step on one, and can wait for the device."""

    batches: Iterator[Any]
    step: Callable[[Tensor, Tensor], object]
    wait: Callable[[], object]

    def take_turn(self, num_steps: int) -> Timing:
        """Take the steps and return how long they took."""
        loading = 0.0
        start = perf_counter()
        for _ in range(num_steps):
            before = perf_counter()
            inputs, labels = next(self.batches)
            loading += perf_counter() - before
            self.step(inputs, labels)
        self.wait()
        return Timing(perf_counter() - start, loading)


class Pictures(Dataset[tuple[Any, int]]):
    """Training images as torchvision's CIFAR10 gives them: a PIL image, transformed, and its label."""

    def __init__(self, images: Images, transform: Callable[[Any], Any]) -> None:
        self.pixels = images.train_images.permute(0, 2, 3, 1).numpy()  # (N, H, W, C)
        self.labels: list[int] = images.train_labels.tolist()
        self.transform = transform

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        return self.transform(Image.fromarray(self.pixels[index])), self.labels[index]


def plain_loop(cfg: DictConfig) -> Contestant:
    """Return the loop that everybody writes, on the device of the configuration."""
    arithmetic = set_up_device(**cfg.device)
    device = arithmetic.torch_device
    steps = [transforms.ToTensor(), transforms.Normalize(list(cfg.data.mean), list(cfg.data.std))]
    augment = [transforms.RandomCrop(32, padding=4), transforms.RandomHorizontalFlip()]
    images = checked(create(cfg.data.source).load(), cfg.data.source._target_)
    pictures = Pictures(images, transforms.Compose([*augment, *steps]))
    loader = DataLoader(pictures, batch_size=cfg.batch_size, shuffle=True)
    torch.manual_seed(cfg.seed)
    model = create(cfg.model).to(device)
    optimizer = optim.Adam(model.parameters(), lr=0.001)
    model.train()

    def batches() -> Iterator[tuple[Tensor, Tensor]]:
        while True:
            yield from loader

    def step(inputs: Tensor, labels: Tensor) -> None:
        inputs, labels = inputs.to(device), labels.to(device)
        loss = F.cross_entropy(model(inputs), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return Contestant(batches(), step, arithmetic.wait)


def our_loop(cfg: DictConfig) -> Contestant:
    """Return what run.py does with the configuration."""
    parts = build_parts(cfg, RunInfo("bench", None, {}))
    loaders = build_loaders(cfg, parts)
    trainer = new_trainer(cfg, parts, loaders)
    trainer.model.train()

    def batches() -> Iterator[tuple[Tensor, Tensor]]:
        epoch = 0
        while True:
            trainer.counters.index = 0
            yield from loaders.train.epoch(epoch)
            epoch += 1

    def wait() -> None:
        if trainer.window.rows:
            trainer.read_window()

    return Contestant(batches(), trainer.take_step, wait)


LOOPS: dict[str, Callable[[DictConfig], Contestant]] = {PLAIN: plain_loop, OURS: our_loop}


def warmed_up(name: str, cfg: DictConfig) -> tuple[Contestant, int]:
    """Return a contestant that has taken its first steps, and the bytes of the GPU that these needed at their peak."""
    if cfg.device.name != "cpu" and torch.cuda.is_available():
        torch.cuda.init()
        torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()  # 0 where no GPU is in use
    contestant = LOOPS[name](cfg)
    contestant.take_turn(WARM_UP_STEPS)
    return contestant, torch.cuda.max_memory_allocated() - before


def peak_memory(name: str, words: list[str]) -> int:
    """Return the bytes that this process needs at its peak to take one contestant's first steps."""
    warmed_up(name, compose_words(words)[0])
    unit = 1 if os.uname().sysname == "Darwin" else 1024
    return unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def in_own_process(function: Callable[..., Any], *arguments: Any) -> Any:
    """Return what the function returns in a process that does nothing else."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        try:
            return pool.submit(function, *arguments).result()
        except BrokenProcessPool as error:
            signals.check()
            raise UserError("The process that measures the memory was killed, probably for want of memory.") from error


def matmul_rate(device: Device) -> float:
    """Return the floating-point operations per second of a large matrix product, the best of several.

    Its numbers are those of the run; cuDNN's convolutions, unlike this, round float32 to tf32.
    """
    size = MATMUL_SIZE.get(device.torch_device.type, 2048)
    left, right = torch.randn(2, size, size, device=device.torch_device, dtype=DTYPES[device.precision])
    seconds = []
    for _ in range(MATMUL_REPEATS):
        start = perf_counter()
        left @ right
        device.wait()
        seconds.append(perf_counter() - start)
    return 2 * size**3 / min(seconds)


def step_flops(model: nn.Module, batch_size: int, device: torch.device) -> int:
    """Return the floating-point operations of the convolutions' and linear layers' step as they are defined."""
    counter = FlopCounterMode(display=False)
    with counter:
        model.to(device)(torch.randn(batch_size, 3, 32, 32, device=device)).sum().backward()
    return int(counter.get_total_flops())


def tell(words: list[str], what: str) -> None:
    """Say on stderr what happens now: a comparison takes minutes."""
    print(f"{words[0]}: {what}", file=sys.stderr, flush=True)


def compare(words: list[str], num_rounds: int, num_steps: int) -> dict[str, Any]:
    """Let both take turns, and return what was measured: seconds, bytes, and the ratio in every round."""
    cfg, _ = compose_words(words)
    check(cfg)
    device = set_up_device(**cfg.device)
    memory: dict[str, int] = {}
    if device.torch_device.type != "cuda":
        tell(words, "measuring the memory in processes of their own …")
        memory = {name: in_own_process(peak_memory, name, words) for name in LOOPS}
    tell(words, "warming up …")
    contestants: dict[str, Contestant] = {}
    for name in LOOPS:
        contestants[name], gpu_bytes = warmed_up(name, cfg)
        memory.setdefault(name, gpu_bytes)
    rates, rounds = [], []
    for number in range(num_rounds):
        rates.append(matmul_rate(device))
        order = [*LOOPS][:: 1 if number % 2 == 0 else -1]
        rounds.append({name: contestants[name].take_turn(num_steps) for name in order})
        times = ", ".join(f"{name} {1000 * rounds[-1][name].total / num_steps:.1f}" for name in LOOPS)
        tell(words, f"round {number + 1} of {num_rounds}: {times} ms per step")
    flops = step_flops(create(cfg.model), cfg.batch_size, device.torch_device)
    return {
        "words": words,
        "device": device.describe(),
        "batch_size": cfg.batch_size,
        "num_steps": num_steps,
        "git_commit": git_commit(),
        "date": date.today().isoformat(),
        "versions": library_versions(),
        "flops": flops,
        "matmul_flops_per_second": median(rates),
        "matmul_numbers": device.precision,
        "floor_seconds": flops / median(rates),
        "peak_bytes": memory,
        "rounds": [{name: asdict(timing) for name, timing in turn.items()} for turn in rounds],
        "ratios": [turn[PLAIN].total / turn[OURS].total for turn in rounds],
    }


def table(result: dict[str, Any]) -> str:
    """Return the comparison in words."""
    steps, batch_size = result["num_steps"], result["batch_size"]
    lines = [
        f"{' '.join(result['words'])} on {result['device']}, {len(result['rounds'])} rounds of {steps} steps in turn",
        "         ms per step  images/s  loading  peak memory",
    ]
    for name in LOOPS:
        turns = [turn[name] for turn in result["rounds"]]
        seconds = median(turn["total"] for turn in turns) / steps
        loading = mean(turn["loading"] / turn["total"] for turn in turns)
        gib = result["peak_bytes"][name] / 2**30
        lines.append(f"{name:<7}  {1000 * seconds:11.1f}  {batch_size / seconds:8.0f}  {loading:7.1%}  {gib:7.2f} GiB")
    floor, ratios = result["floor_seconds"], sorted(result["ratios"])
    rate = result["matmul_flops_per_second"] / 1e9
    lines += [
        f"floor    {1000 * floor:11.1f}  {batch_size / floor:8.0f}  "
        f"{result['flops'] / 1e9:,.0f} GFLOP a step at {rate:,.0f} GFLOP/s "
        f"of a large {result['matmul_numbers']} matrix product",
        f"ratio    {median(ratios):11.2f}  (from {ratios[0]:.2f} to {ratios[-1]:.2f})",
    ]
    return "\n".join(lines)


def bench(arguments: Sequence[str] | None = None) -> None:
    """Compare for every model that the command line names."""
    parser = Parser("bench", "Compare what cifar run does with the loop that everybody writes.", EXAMPLES)
    parser.add_argument("--model", nargs="+", default=["resnet50"], help="one or more of run.py's models")
    parser.add_argument("--device", default="auto", help="one of run.py's choices of device")
    parser.add_argument("--threads", type=int, help="CPU threads")
    parser.add_argument("--batch-size", type=int, default=100)
    parser.add_argument("--steps", type=int, default=10, help="in every round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument(
        "--log", type=Path, default=LOG, help=f"the file of JSON lines to which the figures are added ({LOG})"
    )
    parser.add_argument("--against", type=Path, help="such a file: say what became slower since, with exit code 1")
    parser.add_argument("--set", nargs="*", default=[], metavar="key=value", help="more of run.py's words")
    options = parser.parse_args(arguments)
    if options.steps < 1 or options.rounds < 1:
        parser.error("--steps and --rounds take 1 or more")
    if options.against is not None and options.rounds < MIN_ROUNDS:
        parser.error(f"--against takes --rounds {MIN_ROUNDS} or more")
    earlier = [] if options.against is None else read_results(options.against)
    prepare_results(options.log)
    results: list[dict[str, Any]] = []
    for model in options.model:
        words = [f"model={model}", f"device={options.device}", f"batch_size={options.batch_size}"]
        threads = [] if options.threads is None else [f"device.threads={options.threads}"]
        results.append(compare([*words, *threads, *options.set, "tracker=none"], options.rounds, options.steps))
        add_result(options.log, results[-1])
        print(table(results[-1]), flush=True)
    if options.against is not None:
        lines, is_slower = compare_with(earlier, results)
        print("\n".join(lines), flush=True)
        sys.exit(int(is_slower))


def command() -> None:
    """Do what the command line says."""
    guard(bench)
