"""Data sets as uint8 tensors: `cifar run data=cifar10`, `data=digits`, `data=random`.

A source checks its arguments when it is built and reads, downloads or makes its images in `load`.
"""

import hashlib
import http.client
import logging
import shutil
import tarfile
import tempfile
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

import torch
from filelock import FileLock, Timeout
from tqdm import tqdm

from cifar.base.errors import UserError
from cifar.base.locks import locked
from cifar.base.paths import absolute, why_no_file
from cifar.base.run_folder import write_atomically
from cifar.base.sealed import read_checkpoint, sealed
from cifar.data.images import Images as Images
from cifar.data.splits import stratified_split

log = logging.getLogger(__name__)

Stamps = tuple[tuple[int, int, int], ...]  # inode, bytes and time of change of each file


# The names in the order of the labels, as CIFAR-10's batches.meta has them.
CIFAR10_NAMES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


def known_class_names(target: Any) -> list[str]:
    """Return the classes' names of a source of this module by its `_target_`, without its images; none of another."""
    names = {"CIFAR10": CIFAR10_NAMES, "Digits": tuple(map(str, range(10)))}
    module, _, name = str(target).rpartition(".")
    return [*names.get(name, ())] if module == __name__ else []


class Source(Protocol):
    """What the experiment asks of a data set."""

    def load(self) -> Images:
        """Return the images, on the CPU."""


@dataclass(frozen=True)
class CIFAR10:
    """CIFAR-10's python batches under `root`, downloaded from the first of `mirrors` that delivers if absent.

    Unless the folder `cache` is None, the decoded images are kept in it, so that the next process starts sooner.
    """

    root: str
    mirrors: Sequence[str]
    cache: str | None = None

    def __post_init__(self) -> None:
        if isinstance(self.mirrors, str):
            raise UserError(f"data.source.mirrors={self.mirrors} is not possible: it takes a list, [{self.mirrors}].")

    def load(self) -> Images:
        """Return the verified images; raise `UserError` naming the file that is missing, damaged or unwritable."""
        root = find_root(self.root)
        folder = root / BATCHES_FOLDER
        cache = None
        with suppress(UserError):  # no home means no cache
            cache = None if self.cache is None else absolute(self.cache)
        try:
            if not folder.exists():
                from torchvision import datasets  # seconds, so only when used

                download(root, datasets.CIFAR10.filename, datasets.CIFAR10.tgz_md5, self.mirrors)
            stamps = [path.stat() for path in sorted(folder.glob("*"))]
            return read_once(root, tuple((stamp.st_ino, stamp.st_size, stamp.st_mtime_ns) for stamp in stamps), cache)
        except RuntimeError as error:  # torchvision's integrity check, which does not say which file it was
            raise UserError(describe_damage(folder)) from error
        except OSError as error:
            raise UserError(f"CIFAR-10 in {root} can't be read or written: {error}.\n{WAYS_OUT}") from error


def find_root(given: str) -> Path:
    """Return the folder that holds the batches' folder, or may come to hold it; the batches' folder itself will do.

    Raises `UserError` for one that can't be meant.
    """
    try:
        root = absolute(given)
    except UserError as error:
        raise UserError(f"data.root={error}\n{WAYS_OUT}") from None
    folder = root / BATCHES_FOLDER
    if folder.exists():
        return root
    if root.name == BATCHES_FOLDER and root.is_dir():
        return root.parent
    if (root / "data_batch_1").exists():
        raise UserError(f"data.root={root} holds CIFAR-10's files themselves: name their folder {BATCHES_FOLDER}.")
    if " is a link " in (problem := why_no_file(str(folder))):  # to download in its place is not what was meant
        raise UserError(f"data.root={given} is not possible: {problem}.\n{WAYS_OUT}")
    return root


@lru_cache(maxsize=1)
def read_once(root: Path, stamps: Stamps, cache: Path | None) -> Images:
    """Return the verified images, which a sweep's jobs in one process share while the files' `stamps` are equal."""
    log.info(f"Reading CIFAR-10 in {root} …")
    if cache is None:
        return read_batches(root)
    remove_leftovers(cache)
    path, key = cache / "cifar10.pt", [str(root.resolve()), stamps, list(Images.__annotations__)]
    with suppress(UserError, OSError):  # there is none, it is damaged, or somebody else's
        content = read_checkpoint(path, must_be_sealed=True)
        if content.pop("key", None) == key:
            return Images(**content)
    images = read_batches(root)
    with suppress(OSError, NotImplementedError, UserError), locked(cache):  # no place, not allowed, or another does it
        write_atomically(path, lambda file: file.write(sealed({"key": key, **vars(images)})))
    return images


def remove_leftovers(cache: Path) -> None:
    """Remove what a process left that was killed while it wrote, unless one is writing now."""
    with suppress(OSError, NotImplementedError, UserError):
        if any(cache.glob(".*.tmp")):
            with locked(cache):  # does it
                pass


def read_batches(root: Path) -> Images:
    """Return the images of the batches, whose md5 torchvision verifies."""
    from torchvision import datasets

    train, test = datasets.CIFAR10(root, train=True), datasets.CIFAR10(root, train=False)
    return Images(
        train_images=torch.from_numpy(train.data).permute(0, 3, 1, 2).contiguous(),
        train_labels=torch.tensor(train.targets),
        test_images=torch.from_numpy(test.data).permute(0, 3, 1, 2).contiguous(),
        test_labels=torch.tensor(test.targets),
        class_names=list(train.classes),
    )


BATCHES_FOLDER = "cifar-10-batches-py"
PREFIX = ".download-"  # of what exists only while images are downloaded
WAYS_OUT = (
    "Ways on: set CIFAR10_ROOT (or data.root) to a folder that holds cifar-10-batches-py, "
    "name another mirror with 'data.source.mirrors=[URL]', or use data=digits, which needs no download."
)


def describe_damage(folder: Path) -> str:
    """Return a message that names the first of the batches' files that is missing in `folder` or altered."""
    from torchvision import datasets

    batches = datasets.CIFAR10
    for name, md5 in [*batches.train_list, *batches.test_list, (batches.meta["filename"], batches.meta["md5"])]:
        path = folder / name
        if not path.is_file():
            problem = f"{path} is missing"
        elif (found := file_md5(path)) != md5:
            problem = f"{path} is damaged: {path.stat().st_size:,} bytes with md5 {found}, but it should be {md5}"
        else:
            continue
        return f"{problem}.\nMove {folder} away to download it again. {WAYS_OUT}"
    return f"{folder} can't be read.\n{WAYS_OUT}"


def file_md5(path: Path) -> str:
    """Return the file's md5 in hexadecimal."""
    digest = hashlib.md5(usedforsecurity=False)
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def download(root: Path, filename: str, md5: str, mirrors: Sequence[str]) -> None:
    """Fetch the archive from the first mirror that delivers it intact and unpack it in `root`.

    An archive that somebody put into `root` is tried first. Nothing appears under its final name before it is
    complete and verified. Raises `UserError` with every mirror's failure if none delivers.
    """
    is_new = not root.exists()
    root.mkdir(parents=True, exist_ok=True)
    try:
        with alone(root):
            if not (root / BATCHES_FOLDER).exists():  # else another process was faster
                fetch_and_unpack(root, filename, md5, mirrors)
    finally:
        if is_new:
            with suppress(OSError):
                root.rmdir()  # only if nothing has come into it


def fetch_and_unpack(root: Path, filename: str, md5: str, mirrors: Sequence[str]) -> None:
    """Do what `download` says when no other process does."""
    if (root / filename).is_file():
        mirrors = [(root / filename).resolve().as_uri(), *mirrors]
    with tempfile.TemporaryDirectory(prefix=PREFIX, dir=root) as temporary:
        archive, unpacked = Path(temporary) / filename, Path(temporary) / "unpacked"
        fetch_intact(archive, md5, mirrors)
        with tarfile.open(archive) as tar:
            tar.extractall(unpacked, filter="data")
        for entry in unpacked.iterdir():
            if not (root / entry.name).exists():
                entry.rename(root / entry.name)


@contextmanager
def alone(root: Path) -> Iterator[None]:
    """Wait until no other process downloads to `root`; then remove what those left that were killed meanwhile."""
    path = root / f"{PREFIX}lock"
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        log.info(f"Another process downloads to {root}: waiting for it …")
        lock.acquire()
    try:
        for leftover in root.glob(f"{PREFIX}*/"):
            shutil.rmtree(leftover, ignore_errors=True)
        yield
    finally:
        path.unlink(missing_ok=True)
        lock.release()


def fetch_intact(archive: Path, md5: str, mirrors: Sequence[str]) -> None:
    """Fetch the file `archive` from the first mirror that delivers it with this md5, or raise `UserError`."""
    failures = []
    for url in mirrors:
        try:
            fetch(url, archive)
        except (OSError, http.client.HTTPException, ValueError) as error:  # ValueError: not a URL
            failures.append(f"{url}: {error}")
            continue
        if (found := file_md5(archive)) == md5:
            return
        failures.append(f"{url}: {archive.stat().st_size:,} bytes with md5 {found}, but it should be {md5}")
    tried = "\n  ".join(failures) or "data.source.mirrors is empty"
    raise UserError(f"{archive.name} can't be downloaded:\n  {tried}\n{WAYS_OUT}")


def fetch(url: str, path: Path) -> None:
    """Copy what `url` delivers to `path`, with a progress bar; raise `OSError` when it fails or stalls for 30 s."""
    with urllib.request.urlopen(url, timeout=30) as response, path.open("wb") as file:
        total = int(response.headers.get("Content-Length", 0)) or None
        with tqdm(desc=f"Downloading {url}", total=total, unit="B", unit_scale=True, dynamic_ncols=True) as bar:
            while chunk := response.read(1 << 16):
                file.write(chunk)
                bar.update(len(chunk))


@dataclass(frozen=True)
class Digits:
    """scikit-learn's 1,797 handwritten digits, each pixel enlarged to 4×4 and repeated for three channels."""

    test_size: int

    def __post_init__(self) -> None:
        if not 1 <= self.test_size <= 1700:
            raise UserError(f"data.source.test_size={self.test_size!r} is not possible: it takes 1 to 1700 images.")

    def load(self) -> Images:
        """Return the images; the test set is the same stratified choice every time."""
        from sklearn.datasets import load_digits  # a second, so only when used

        pixels, labels = load_digits(return_X_y=True)  # (1797, 64), 0 … 16
        images = torch.from_numpy(pixels).view(-1, 1, 8, 8).mul(255 / 16).round().to(torch.uint8)
        images = images.repeat_interleave(4, dim=2).repeat_interleave(4, dim=3).expand(-1, 3, -1, -1).contiguous()
        targets = torch.from_numpy(labels).to(torch.int64)
        train, test = stratified_split(targets, self.test_size, seed=0)
        return Images(images[train], targets[train], images[test], targets[test], [str(digit) for digit in range(10)])


@dataclass(frozen=True)
class RandomImages:
    """Uniform noise, 3×32×32, with labels that take every class in turn."""

    num_train: int
    num_test: int
    num_classes: int
    seed: int

    def __post_init__(self) -> None:
        for key in ("num_train", "num_test", "num_classes"):
            if getattr(self, key) < 1:
                raise UserError(f"data.source.{key}={getattr(self, key)!r} is not possible: it takes 1 or more.")

    def load(self) -> Images:
        """Return the images; they depend on the sizes and `seed` alone."""
        generator = torch.Generator().manual_seed(self.seed)
        num_images = self.num_train + self.num_test
        images = torch.randint(0, 256, (num_images, 3, 32, 32), dtype=torch.uint8, generator=generator)
        labels = torch.arange(num_images) % self.num_classes
        return Images(
            images[: self.num_train],
            labels[: self.num_train],
            images[self.num_train :],
            labels[self.num_train :],
            [str(label) for label in range(self.num_classes)],
        )
