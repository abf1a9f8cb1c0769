"""Small stand-ins for published archives, which torchvision is told to expect."""

import hashlib
import pickle
import tarfile
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.io import savemat
from torchvision import datasets

NAMES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
FINE = [f"fine{label:02}" for label in range(100)]
COARSE = [f"coarse{label:02}" for label in range(20)]


@dataclass
class Archive:
    """A small stand-in for a data set's archive, which torchvision has been told to expect."""

    files: dict[str, bytes]
    content: bytes


def batch_file(seed: int, num_images: int = 20, **labels: list[int]) -> bytes:
    """Return a small file of the format of CIFAR-10's batches."""
    generator = np.random.default_rng(seed)
    pixels = generator.integers(0, 256, (num_images, 3072), dtype=np.uint8)
    return pickle.dumps({"data": pixels, **(labels or {"labels": [index % 10 for index in range(num_images)]})})


def packed(files: dict[str, bytes], folder: str) -> bytes:
    """Return a compressed archive of a folder with the files."""
    buffer = BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name, content in files.items():
            entry = tarfile.TarInfo(f"{folder}/{name}")
            entry.size = len(content)
            tar.addfile(entry, BytesIO(content))
    return buffer.getvalue()


def md5(content: bytes) -> str:
    """Return the md5 in hexadecimal."""
    return hashlib.md5(content).hexdigest()


def expected(patch: pytest.MonkeyPatch, dataset: Any, files: dict[str, bytes], num_train: int) -> Archive:
    """Return the archive of the files, of which the first `num_train` are for training, then one test file, then meta.

    torchvision's data set takes it for the published one.
    """
    content, names = packed(files, dataset.base_folder), [*files]
    md5s = [[name, md5(files[name])] for name in names]
    patch.setattr(dataset, "tgz_md5", md5(content))
    patch.setattr(dataset, "train_list", md5s[:num_train])
    patch.setattr(dataset, "test_list", md5s[num_train : num_train + 1])
    patch.setattr(dataset, "meta", {**dataset.meta, "md5": md5s[-1][1]})
    return Archive(files, content)


def small_cifar10(patch: pytest.MonkeyPatch) -> Archive:
    """Return CIFAR-10 with 20 images a file."""
    names = [name for name, _ in datasets.CIFAR10.train_list + datasets.CIFAR10.test_list]
    files = {name: batch_file(seed) for seed, name in enumerate(names)}
    files["batches.meta"] = pickle.dumps({"label_names": NAMES})
    return expected(patch, datasets.CIFAR10, files, num_train=5)


def small_cifar100(patch: pytest.MonkeyPatch) -> Archive:
    """Return CIFAR-100 with 200 training and 100 test images, whose coarse label is the fine one modulo 20."""

    def part(seed: int, num_images: int) -> bytes:
        fine = [(7 * index) % 100 for index in range(num_images)]
        return batch_file(seed, num_images, fine_labels=fine, coarse_labels=[label % 20 for label in fine])

    meta = pickle.dumps({"fine_label_names": FINE, "coarse_label_names": COARSE})
    files = {"train": part(1, 200), "test": part(2, 100), "meta": meta}
    return expected(patch, datasets.CIFAR100, files, num_train=1)


def small_svhn(patch: pytest.MonkeyPatch) -> dict[str, bytes]:
    """Return SVHN's files with 60 training and 30 test images, which torchvision takes for the published ones."""
    files, generator = {}, np.random.default_rng(3)
    for part, num_images in (("train", 60), ("test", 30)):
        pixels = generator.integers(0, 256, (32, 32, 3, num_images), dtype=np.uint8)
        labels = (np.arange(num_images, dtype=np.uint8)[:, None] % 10) + 1  # 10 is the digit 0
        buffer = BytesIO()
        savemat(buffer, {"X": pixels, "y": labels})
        files[f"{part}_32x32.mat"] = buffer.getvalue()
    split_list = {name.partition("_")[0]: ["url", name, md5(content)] for name, content in files.items()}
    patch.setattr(datasets.SVHN, "split_list", split_list)
    return files


def put_svhn(folder: Path, patch: pytest.MonkeyPatch) -> None:
    """Put the small SVHN into the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in small_svhn(patch).items():
        (folder / name).write_bytes(content)


def put_cifar100(folder: Path, patch: pytest.MonkeyPatch) -> None:
    """Put the small CIFAR-100, under its published name, into the folder: it is found there and not downloaded."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "cifar-100-python.tar.gz").write_bytes(small_cifar100(patch).content)
