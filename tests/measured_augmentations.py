"""Images per second of each augmentation: python -m tests.measured_augmentations [ROUNDS [CORES [CHOICE …]]]

Prints the tables of docs/speed.md. Both sides give normalised batches of 100 of the same 5,000 images of CIFAR-10, in
turn: cifar's loader, and torchvision's transforms of PIL images in a DataLoader. On one core, both work in one thread
of this process and its processor time counts, which other work on the machine changes little. On more, the loader has
so many threads, the DataLoader so many workers, which are started before, and the wall clock counts: this is for a
quiet machine.
"""

import os
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from statistics import median
from time import perf_counter, process_time

import torch
import torchvision
from omegaconf import DictConfig
from torch import Tensor
from torch.utils.data import DataLoader
from torchvision import transforms
from torchvision.transforms import v2

from cifar.commands.measuring.bench import Pictures
from cifar.data.images import Images, checked
from cifar.data.loader import Loader
from cifar.experiment.building import create
from cifar.experiment.typed.compose import compose_words

NUM_IMAGES, BATCH_SIZE = 5000, 100
Batch = tuple[Tensor, Tensor]
# What torchvision has for each choice: transforms of the picture, of the normalised tensor, and of the batch.
CROP_FLIP = [transforms.RandomCrop(32, padding=4), transforms.RandomHorizontalFlip()]
SQUARE = transforms.RandomErasing(p=1.0, scale=(0.25, 0.25), ratio=(1.0, 1.0))
CIFAR10_POLICY = transforms.AutoAugment(transforms.AutoAugmentPolicy.CIFAR10)
THEIRS: dict[str, tuple[list[object], list[object], Callable[..., Batch] | None]] = {
    "augment=none": ([], [], None),
    "augment=crop_flip": (CROP_FLIP, [], None),
    "augment=translate_altflip": (
        [transforms.RandomCrop(32, padding=2, padding_mode="reflect"), transforms.RandomHorizontalFlip()], [], None
    ),
    "augment=cutout": (CROP_FLIP, [SQUARE], None),
    "augment=erasing": (CROP_FLIP, [transforms.RandomErasing()], None),
    "augment=colour": ([*CROP_FLIP, transforms.ColorJitter(0.4, 0.4, 0.4)], [], None),
    "augment=trivial": ([*CROP_FLIP, transforms.TrivialAugmentWide()], [], None),
    "augment=trivial_cutout": ([*CROP_FLIP, transforms.TrivialAugmentWide()], [SQUARE], None),
    "augment=rand": ([*CROP_FLIP, transforms.RandAugment()], [], None),
    "augment=auto": ([*CROP_FLIP, CIFAR10_POLICY], [], None),
    "mix=mixup": (CROP_FLIP, [], v2.MixUp(num_classes=10)),
    "mix=cutmix": (CROP_FLIP, [], v2.CutMix(num_classes=10)),
}  # fmt: skip


def ours(cfg: DictConfig, images: Images) -> Loader:
    """Return the loader of `cifar run`."""
    return Loader(
        images.train_images,
        images.train_labels,
        batch_size=BATCH_SIZE,
        mean=list(cfg.data.mean),
        std=list(cfg.data.std),
        augment=create(cfg.augment),
        shuffle=True,
        mix=create(cfg.mix),
        num_classes=10,
    )


def theirs(cfg: DictConfig, images: Images, word: str, num_cores: int) -> DataLoader[tuple[object, int]]:
    """Return the loader that everybody writes."""
    of_picture, of_tensor, _ = THEIRS[word]
    normalise = transforms.Normalize(list(cfg.data.mean), list(cfg.data.std))
    pictures = Pictures(images, transforms.Compose([*of_picture, transforms.ToTensor(), normalise, *of_tensor]))
    num_workers = num_cores if num_cores > 1 else 0
    return DataLoader(pictures, BATCH_SIZE, shuffle=True, num_workers=num_workers, persistent_workers=num_workers > 0)


def rate(batches: Iterable[Batch], clock: Callable[[], float], of_batch: Callable[..., Batch] | None = None) -> float:
    """Return the images per second of an epoch."""
    start = clock()
    num_images = sum(len((of_batch(*batch) if of_batch else batch)[0]) for batch in batches)
    assert num_images == NUM_IMAGES
    return num_images / (clock() - start)


def row(word: str, num_rounds: int, num_cores: int) -> str:
    """Return a line of the table: medians over the rounds, and the least and the largest ratio."""
    cfg, _ = compose_words([word, "data=cifar10", "tracker=none"])
    every = checked(create(cfg.data.source).load(), "data")
    some = replace(every, train_images=every.train_images[:NUM_IMAGES], train_labels=every.train_labels[:NUM_IMAGES])
    mine, plain, of_batch = ours(cfg, some), theirs(cfg, some, word, num_cores), THEIRS[word][2]
    clock = process_time if num_cores == 1 else perf_counter
    rates = []
    for number in range(num_rounds + 1):
        rates.append((rate(mine.epoch(number), clock), rate(plain, clock, of_batch)))
    del rates[0]  # which warmed up
    here, there = (median(side) for side in zip(*rates, strict=True))
    ratios = sorted(one / other for one, other in rates)
    return f"| `{word}` | {here:,.0f} | {there:,.0f} | {median(ratios):.1f} ({ratios[0]:.1f}–{ratios[-1]:.1f}) |"


def main(num_rounds: int, num_cores: int, words: Sequence[str]) -> None:
    """Print the table, of all choices or of those in `words`."""
    torch.set_num_threads(num_cores)
    versions = f"torch {torch.__version__}, torchvision {torchvision.__version__}"
    print(f"{versions}, {num_rounds} rounds, {num_cores} cores, load at the beginning {os.getloadavg()[0]:.1f}\n")
    print("| | here | torchvision | ratio |\n|---|---|---|---|")
    for word in words or THEIRS:
        print(row(word, num_rounds, num_cores), flush=True)


if __name__ == "__main__":
    rounds, cores, *words = [*sys.argv[1:], *("5", "1")[len(sys.argv) - 1 :]]
    main(int(rounds), int(cores), words)
