"""What real ranks do for tests/training/test_distributed.py: each a process of its own, joined by gloo."""

import copy
import math
import traceback
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn, optim

from cifar.data.augment.crops import CropFlip
from cifar.data.loader import Loader
from cifar.data.mix import Cutmix, Mixup, OneOf
from cifar.training.averaging.batch_statistics import recompute
from cifar.training.batch_norm import synchronise
from cifar.training.devices.device import Device
from cifar.training.distributed import Ranks
from cifar.training.evaluating.evaluation import evaluate
from cifar.training.optimizers import Muon
from cifar.training.steps.kept import build_step
from cifar.training.steps.sharpness import SAM
from cifar.training.steps.step import TrainingStep
from tests.processes import WARM

CPU = Device(torch.device("cpu"), "fp32")
FP16 = Device(torch.device("cpu"), "fp16")
OPTIMIZERS: dict[str, Callable[[Any], optim.Optimizer]] = {
    "adam": lambda weights: optim.Adam(weights, lr=0.01),
    "adamw": lambda weights: optim.AdamW(weights, lr=0.01, weight_decay=0.1),
    "sgd": lambda weights: optim.SGD(weights, lr=0.05, momentum=0.9, nesterov=True),
    "muon": lambda weights: Muon(weights, lr=0.02),
    "sam": lambda weights: SAM(weights, 0.05, 0.1, True, 0.01, partial(optim.SGD, momentum=0.9)),
}
SIZES = [12, 12, 7, 12, 9] * 4  # of 20 batches, which two or three ranks do not always divide
SMALL = [4, 3, 2, 1] * 5  # … of which some ranks have one image or none


class Net(nn.Module):
    """Two convolutions with batch norms, one of which averages over all batches, and a weight that nobody uses."""

    def __init__(self, num_classes: int = 10) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.GELU(), nn.Conv2d(4, 6, 3, stride=2),
            nn.BatchNorm2d(6, momentum=None), nn.GELU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
            nn.Linear(6, num_classes),
        )  # fmt: skip
        self.unused = nn.Linear(3, 3)

    def forward(self, inputs: Tensor) -> Tensor:
        """Return logits."""
        logits: Tensor = self.layers(inputs)
        return logits


def make(dtype: torch.dtype = torch.float64) -> Net:
    """Return the net with the same weights in every process."""
    torch.manual_seed(0)
    return Net().to(dtype)


def batches(sizes: list[int], dtype: torch.dtype = torch.float64) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield whole batches."""
    generator = torch.Generator().manual_seed(1)
    for size in sizes:
        yield (
            torch.randn(size, 3, 8, 8, generator=generator, dtype=dtype),
            torch.randint(10, (size,), generator=generator),
        )


def train(ranks: Ranks, name: str, sizes: list[int], is_synchronised: bool, accumulate: int = 1) -> dict[str, Any]:
    """Take a step on every batch, and return the weights and buffers, and what was measured."""
    model = make()
    if is_synchronised and ranks.are_several:
        synchronise(model)
    options: dict[str, Any] = {"label_smoothing": 0.1, "accumulate": accumulate, "clip_norm": 0.5, "ranks": ranks}
    step = build_step(model, OPTIMIZERS[name](model.parameters()), CPU, key="ranks", **options)
    rows = []
    for inputs, labels in batches(sizes):
        places = ranks.places(len(labels), accumulate)
        rows.append(step(inputs[places], labels[places], len(labels)))
    assert model.unused.weight.grad is None
    return {"state": copy.deepcopy(model.state_dict()), "rows": torch.stack(rows)}


def poisoned(ranks: Ranks, device: Device, on_nonfinite: str) -> dict[str, Any]:
    """Train with one image that is not finite, or too large, in the second batch: the last rank has it."""
    model = make(torch.float32)
    step = TrainingStep(model, optim.SGD(model.parameters(), lr=0.1), device, on_nonfinite=on_nonfinite, ranks=ranks)
    rows, scales = [], []
    places = ranks.places(6)
    for number, (inputs, labels) in enumerate(batches([6, 6, 6], torch.float32)):
        if number == 0:
            step.find_scale(inputs[places], labels[places], 6)
        if number == 1:
            inputs[-1] = math.inf
        rows.append(step(inputs[places], labels[places], 6))
        scales.append(step.scaler.get_scale())
    return {"state": copy.deepcopy(model.state_dict()), "rows": torch.stack(rows), "scales": scales}


def recomputed(ranks: Ranks, is_synchronised: bool, accumulate: int) -> dict[str, Any]:
    """Return the batch statistics of an epoch whose last batch has one image, after a step of these ranks."""
    model = make(torch.float32)
    if is_synchronised and ranks.are_several:
        synchronise(model)
    step = TrainingStep(model, optim.SGD(model.parameters(), lr=0.1), CPU, accumulate=accumulate, ranks=ranks)
    share = partial(ranks.places, num_parts=accumulate)
    recompute(model, loader(29, ranks, batch_size=8, share=share if ranks.are_several else None), 3, step)
    return copy.deepcopy(model.state_dict())


def evaluated(ranks: Ranks, num_images: int, tta: str) -> dict[str, Any]:
    """Evaluate on images which the ranks do not divide."""
    model = make(torch.float32).eval()
    result = evaluate(model, CPU, loader(num_images, ranks, batch_size=4), tta, ranks=ranks)
    return vars(result)


def loader(num_images: int, ranks: Ranks, **options: Any) -> Loader:
    """Return a loader of random images."""
    generator = torch.Generator().manual_seed(2)
    images = torch.randint(256, (num_images, 3, 8, 8), generator=generator, dtype=torch.uint8)
    labels = torch.randint(10, (num_images,), generator=generator)
    options = {"share": ranks.places if ranks.are_several else None} | options
    return Loader(images, labels, mean=[0.5] * 3, std=[0.25] * 3, **options)


def loaded(ranks: Ranks) -> list[tuple[Tensor, Tensor]]:
    """Return an epoch's batches, shuffled and augmented."""
    return [*loader(11, ranks, batch_size=4, shuffle=True, augment=CropFlip(), seed=3).epoch(5, start=1)]


def mixed(ranks: Ranks) -> dict[str, Any]:
    """Take a step on every mixed batch of an epoch, the last of which has two images."""
    model = make()
    if ranks.are_several:
        synchronise(model)
    step = TrainingStep(model, OPTIMIZERS["sgd"](model.parameters()), CPU, label_smoothing=0.1, ranks=ranks)
    mix = OneOf([Mixup(), Cutmix(probability=1.0)])
    images = loader(22, ranks, batch_size=5, shuffle=True, augment=CropFlip(), seed=3, mix=mix, num_classes=10)
    rows = [
        step(inputs.double(), labels, images.size_of(index)) for index, (inputs, labels) in enumerate(images.epoch(2))
    ]
    return {"state": copy.deepcopy(model.state_dict()), "rows": torch.stack(rows)}


def everything(ranks: Ranks) -> dict[str, Any]:
    """Return all that the tests look at, of these ranks."""
    found: dict[str, Any] = {}
    for name in OPTIMIZERS:
        found[f"{name}/own"] = train(ranks, name, SIZES, is_synchronised=False)
        found[f"{name}/all"] = train(ranks, name, SIZES, is_synchronised=True)
    found["small/all"] = train(ranks, "sgd", SMALL, is_synchronised=True)
    found["parts/own"] = train(ranks, "sgd", [12] * 20, is_synchronised=False, accumulate=2)
    found["parts/all"] = train(ranks, "sgd", SIZES, is_synchronised=True, accumulate=2)
    found["skip"] = poisoned(ranks, CPU, "skip")
    found["fp16"] = poisoned(ranks, FP16, "stop")
    for num_images, tta in ((11, "none"), (11, "mirror_translate"), (1, "mirror")):
        found[f"evaluated/{num_images}/{tta}"] = evaluated(ranks, num_images, tta)
    found["recomputed/own"] = recomputed(ranks, is_synchronised=False, accumulate=1)
    found["recomputed/all"] = recomputed(ranks, is_synchronised=True, accumulate=2)
    found["loaded"] = loaded(ranks)
    found["mixed"] = mixed(ranks)
    found["agreed"] = ranks.agreed(ranks.rank, -ranks.rank)
    found["told"] = ranks.told("from the first" if ranks.leads else None)
    found["gathered"] = ranks.gathered(ranks.rank)
    return found


def process(rank: int, count: int, folder: str) -> None:
    """Be one of the ranks."""
    torch.set_num_threads(1)
    try:
        dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=count)
        torch.save(everything(Ranks.current()), f"{folder}/{rank}.pt")
        dist.destroy_process_group()
    except BaseException:
        Path(f"{folder}/{rank}.err").write_text(traceback.format_exc())
        raise


def run_ranks(count: int, folder: Path) -> list[dict[str, Any]]:
    """Return what each of so many ranks found."""
    processes = [WARM.Process(target=process, args=(rank, count, str(folder))) for rank in range(count)]
    for each in processes:
        each.start()
    for each in processes:
        each.join(300)
    errors = "".join(path.read_text() for path in folder.glob("*.err"))
    assert not errors, errors
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(count)]
