"""Published files fetched from mirrors: whole and verified, or not there at all."""

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
from pathlib import Path

from filelock import FileLock, Timeout
from tqdm import tqdm

from cifar.base.errors import UserError

log = logging.getLogger(__name__)

PREFIX = ".download-"  # of what exists only while images are downloaded


@dataclass(frozen=True)
class Published:
    """A file as its authors publish it, by its name and md5, and the `result` of it: a folder, if it is an archive."""

    filename: str
    md5: str
    result: str

    @property
    def is_archive(self) -> bool:
        """Whether the result lies packed in the file."""
        return self.filename != self.result


def refuse_one_mirror(mirrors: Sequence[str]) -> None:
    """Raise `UserError` for a mirror that does not stand in a list."""
    if isinstance(mirrors, str):
        raise UserError(f"data.source.mirrors={mirrors} is not possible: it takes a list, [{mirrors}].")


def download(root: Path, published: Published, mirrors: Sequence[str], ways_out: str) -> None:
    """Fetch the file from the first mirror that delivers it intact, and unpack an archive in `root`.

    A file that somebody put into `root` is tried first. Nothing appears under its final name before it is complete and
    verified. Raises `UserError` with every mirror's failure, and the `ways_out`, if none delivers.
    """
    is_new = not root.exists()
    root.mkdir(parents=True, exist_ok=True)
    try:
        with alone(root):
            if not (root / published.result).exists():  # else another process was faster
                fetch_and_unpack(root, published, mirrors, ways_out)
    finally:
        if is_new:
            with suppress(OSError):
                root.rmdir()  # only if nothing has come into it


def fetch_and_unpack(root: Path, published: Published, mirrors: Sequence[str], ways_out: str) -> None:
    """Do what `download` says when no other process does."""
    if (root / published.filename).is_file():
        mirrors = [(root / published.filename).resolve().as_uri(), *mirrors]
    with tempfile.TemporaryDirectory(prefix=PREFIX, dir=root) as temporary:
        file, unpacked = Path(temporary) / published.filename, Path(temporary) / "unpacked"
        fetch_intact(file, published.md5, mirrors, ways_out)
        if not published.is_archive:
            file.rename(root / published.result)
            return
        with tarfile.open(file) as tar:
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


def fetch_intact(file: Path, md5: str, mirrors: Sequence[str], ways_out: str) -> None:
    """Fetch the file from the first mirror that delivers it with this md5, or raise `UserError`."""
    failures = []
    for url in mirrors:
        try:
            fetch(url, file)
        except (OSError, http.client.HTTPException, ValueError) as error:  # ValueError: not a URL
            failures.append(f"{url}: {error}")
            continue
        if (found := file_md5(file)) == md5:
            return
        failures.append(f"{url}: {file.stat().st_size:,} bytes with md5 {found}, but it should be {md5}")
    tried = "\n  ".join(failures) or "data.source.mirrors is empty"
    raise UserError(f"{file.name} can't be downloaded:\n  {tried}\n{ways_out}")


def fetch(url: str, path: Path) -> None:
    """Copy what `url` delivers to `path`, with a progress bar; raise `OSError` when it fails or stalls for 30 s."""
    with urllib.request.urlopen(url, timeout=30) as response, path.open("wb") as file:
        total = int(response.headers.get("Content-Length", 0)) or None
        with tqdm(desc=f"Downloading {url}", total=total, unit="B", unit_scale=True, dynamic_ncols=True) as bar:
            while chunk := response.read(1 << 16):
                file.write(chunk)
                bar.update(len(chunk))


def file_md5(path: Path) -> str:
    """Return the file's md5 in hexadecimal."""
    digest = hashlib.md5(usedforsecurity=False)
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def describe_damage(folder: Path, md5s: Sequence[tuple[str, str]], ways_out: str, what: str = "") -> str:
    """Return a message that names the first of the files, by name and md5, that is missing in `folder` or altered.

    `what` is to be moved away, if not the folder.
    """
    for name, md5 in md5s:
        path = folder / name
        if not path.is_file():
            problem = f"{path} is missing"
        elif (found := file_md5(path)) != md5:
            problem = f"{path} is damaged: {path.stat().st_size:,} bytes with md5 {found}, but it should be {md5}"
        else:
            continue
        return f"{problem}.\nMove {what or folder} away to download it again. {ways_out}"
    return f"{folder} can't be read.\n{ways_out}"
