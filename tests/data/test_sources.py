"""Data sets: what they hold, and downloads from a local server with every fault a server can have."""

import hashlib
import pickle
import pwd
import tarfile
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import torch
from torchvision import datasets

from cifar.base.errors import UserError
from cifar.base.locks import locked
from cifar.data import sources
from cifar.data.sources import CIFAR10, Digits, Images, RandomImages, read_batches, read_once

NAMES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]


def batch_file(seed: int) -> bytes:
    """Return a small file of the format of CIFAR-10's batches."""
    generator = np.random.default_rng(seed)
    pixels = generator.integers(0, 256, (20, 3072), dtype=np.uint8)
    return pickle.dumps({"data": pixels, "labels": [index % 10 for index in range(20)]})


@dataclass
class Archive:
    """A small stand-in for CIFAR-10's archive, which torchvision has been told to expect."""

    files: dict[str, bytes]
    content: bytes


@pytest.fixture(name="archive")
def _archive(monkeypatch: pytest.MonkeyPatch) -> Archive:
    names = [name for name, _ in datasets.CIFAR10.train_list + datasets.CIFAR10.test_list]
    files = {name: batch_file(seed) for seed, name in enumerate(names)}
    files["batches.meta"] = pickle.dumps({"label_names": NAMES})
    buffer = BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name, content in files.items():
            entry = tarfile.TarInfo(f"cifar-10-batches-py/{name}")
            entry.size = len(content)
            tar.addfile(entry, BytesIO(content))

    def md5(content: bytes) -> str:
        return hashlib.md5(content).hexdigest()

    monkeypatch.setattr(datasets.CIFAR10, "tgz_md5", md5(buffer.getvalue()))
    monkeypatch.setattr(datasets.CIFAR10, "train_list", [[name, md5(files[name])] for name in names[:-1]])
    monkeypatch.setattr(datasets.CIFAR10, "test_list", [[names[-1], md5(files[names[-1]])]])
    monkeypatch.setattr(datasets.CIFAR10, "meta", {**datasets.CIFAR10.meta, "md5": md5(files["batches.meta"])})
    return Archive(files, buffer.getvalue())


@dataclass
class Server:
    """A local web server: `pages` maps a path to what it delivers, `announced` to a false Content-Length."""

    url: str
    pages: dict[str, bytes] = field(default_factory=dict)
    announced: dict[str, int] = field(default_factory=dict)
    requests: list[str] = field(default_factory=list)


@pytest.fixture(name="server")
def _server() -> Iterator[Server]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            server.requests.append(self.path)
            if self.path not in server.pages:
                self.send_error(404)
                return
            content = server.pages[self.path]
            self.send_response(200)
            self.send_header("Content-Length", str(server.announced.get(self.path, len(content))))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as web:
        server = Server(f"http://127.0.0.1:{web.server_port}")
        threading.Thread(target=web.serve_forever, daemon=True).start()
        yield server
        web.shutdown()


def test_download_takes_the_first_mirror_that_delivers(tmp_path: Path, archive: Archive, server: Server) -> None:
    server.pages = {
        "/altered": archive.content[:-1] + b"x",
        "/cut": archive.content[:1000],
        "/good": archive.content,
        "/never": b"",
    }
    server.announced = {"/cut": len(archive.content)}
    root = tmp_path / "new" / "data"
    mirrors = [f"{server.url}/{page}" for page in ("absent", "altered", "cut", "good", "never")]
    images = CIFAR10(str(root), ["http://127.0.0.1:1/refused", "not a url", *mirrors]).load()
    assert server.requests == ["/absent", "/altered", "/cut", "/good"]
    assert [path.name for path in root.iterdir()] == ["cifar-10-batches-py"]
    assert images.class_names == NAMES
    assert images.train_images.shape == (100, 3, 32, 32)
    assert images.test_images.shape == (20, 3, 32, 32)
    first = pickle.loads(archive.files["data_batch_1"])
    assert torch.equal(images.train_images[:20].flatten(1), torch.from_numpy(first["data"]))
    assert images.train_labels.tolist() == [index % 10 for index in range(20)] * 5
    assert CIFAR10(str(root), []).load().class_names == NAMES  # no second download


def test_when_every_mirror_fails_the_message_says_how_and_nothing_is_left(
    tmp_path: Path, archive: Archive, server: Server
) -> None:
    server.pages = {"/altered": b"<html>Moved</html>"}
    mirrors = [f"{server.url}/absent", f"{server.url}/altered", "http://127.0.0.1:1/x"]
    (tmp_path / "empty").mkdir()
    for folder in ("new", "empty"):
        with pytest.raises(UserError) as error:
            CIFAR10(str(tmp_path / folder), mirrors).load()
    message = str(error.value)
    assert "cifar-10-python.tar.gz can't be downloaded" in message
    assert "/absent: HTTP Error 404" in message
    assert f"/altered: 18 bytes with md5 {hashlib.md5(b'<html>Moved</html>').hexdigest()}, but it should be" in message
    assert "refused" in message
    assert all(way in message for way in ("CIFAR10_ROOT", "data.source.mirrors=", "data=digits"))
    assert [path.relative_to(tmp_path) for path in tmp_path.rglob("*")] == [Path("empty")]
    with pytest.raises(UserError, match="mirrors is empty"):
        CIFAR10(str(tmp_path), []).load()


def test_an_archive_that_lies_there_is_used_also_below_home(
    tmp_path: Path, archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cifar-10-python.tar.gz").write_bytes(archive.content)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert len(CIFAR10("~", []).load().train_labels) == 100
    assert (tmp_path / "cifar-10-batches-py").is_dir()


@pytest.mark.parametrize("fault", ["cut", "flipped", "missing"])
@pytest.mark.parametrize("name", ["data_batch_3", "test_batch", "batches.meta"])
def test_a_damaged_file_is_named(tmp_path: Path, archive: Archive, name: str, fault: str) -> None:
    (tmp_path / "cifar-10-python.tar.gz").write_bytes(archive.content)
    source = CIFAR10(str(tmp_path), [])
    source.load()
    path = tmp_path / "cifar-10-batches-py" / name
    content = path.read_bytes()
    if fault == "missing":
        path.unlink()
    else:
        path.write_bytes(content[:-5] if fault == "cut" else content[:-5] + b"\0" + content[-4:])
    with pytest.raises(UserError) as error:
        source.load()
    assert str(error.value).startswith(f"{path} is {'missing' if fault == 'missing' else 'damaged'}")
    assert "CIFAR10_ROOT" in str(error.value)


def test_decoded_images_are_kept_and_count_while_the_files_are_the_same(tmp_path: Path, archive: Archive) -> None:
    (tmp_path / "cifar-10-python.tar.gz").write_bytes(archive.content)
    source = CIFAR10(str(tmp_path), [], str(tmp_path / "new" / "cache"))
    first = source.load()
    kept = tmp_path / "new" / "cache" / "cifar10.pt"
    assert sorted(path.name for path in kept.parent.iterdir()) == [".lock", "cifar10.pt"]

    def load_anew() -> tuple[Images, bool]:
        """Return what a new process would get, and whether the batches were read for it."""
        with mock.patch.object(sources, "read_batches", wraps=read_batches) as read:
            read_once.cache_clear()
            return source.load(), read.called

    again, was_read = load_anew()
    assert not was_read
    for name, value in vars(first).items():
        other = getattr(again, name)
        assert value == other if isinstance(value, list) else torch.equal(value, other) and value.dtype == other.dtype
    content = kept.read_bytes()
    for damaged in (content[:-1000], content[:5000] + b"?" + content[5001:], b""):
        kept.write_bytes(damaged)
        again, was_read = load_anew()
        assert was_read
        assert torch.equal(again.train_images, first.train_images)
        assert not load_anew()[1]  # it was written again
    (tmp_path / "cifar-10-batches-py" / "data_batch_2").touch()
    assert load_anew()[1]
    (tmp_path / "cifar-10-batches-py" / "data_batch_2").write_bytes(b"")
    with pytest.raises(UserError, match="data_batch_2 is damaged"):
        load_anew()


@pytest.mark.parametrize("place", ["file/cache", "file"])
def test_without_a_place_for_decoded_images_they_are_read_each_time(
    tmp_path: Path, archive: Archive, place: str
) -> None:
    (tmp_path / "cifar-10-python.tar.gz").write_bytes(archive.content)
    (tmp_path / "file").write_text("not a folder")
    assert len(CIFAR10(str(tmp_path), [], str(tmp_path / place)).load().train_labels) == 100
    assert (tmp_path / "file").read_text() == "not a folder"


def test_what_a_killed_process_left_in_the_cache_goes_with_the_next_run_unless_one_is_writing(
    tmp_path: Path, archive: Archive
) -> None:
    (tmp_path / "cifar-10-python.tar.gz").write_bytes(archive.content)
    cache = tmp_path / "cache"
    source = CIFAR10(str(tmp_path), [], str(cache))
    source.load()
    leftover = cache / ".cifar10.pt.01234567.tmp"
    for is_locked in (True, False):
        leftover.write_bytes(b"half")
        read_once.cache_clear()
        with locked(cache) if is_locked else nullcontext():
            leftover.write_bytes(b"half")  # entering removed it
            source.load()
            assert leftover.exists() == is_locked
    assert sorted(path.name for path in cache.iterdir()) == [".lock", "cifar10.pt"]


def test_what_a_killed_download_left_goes_with_the_next(tmp_path: Path, archive: Archive, server: Server) -> None:
    (tmp_path / ".download-a1b2c3d4").mkdir()
    (tmp_path / ".download-a1b2c3d4" / "cifar-10-python.tar.gz").write_bytes(archive.content[:1000])
    server.pages = {"/good": archive.content}
    CIFAR10(str(tmp_path), [f"{server.url}/good"]).load()
    assert [path.name for path in tmp_path.iterdir()] == ["cifar-10-batches-py"]


def test_several_that_want_it_at_once_download_once(tmp_path: Path, archive: Archive, server: Server) -> None:
    server.pages = {"/good": archive.content}
    sources = [CIFAR10(str(tmp_path / "data"), [f"{server.url}/good"]) for _ in range(4)]
    with ThreadPoolExecutor(4) as pool:
        loaded = [*pool.map(lambda source: source.load(), sources)]
    assert server.requests == ["/good"]
    assert [path.name for path in (tmp_path / "data").iterdir()] == ["cifar-10-batches-py"]
    assert all(torch.equal(images.train_images, loaded[0].train_images) for images in loaded)


def test_the_batches_own_folder_will_do_and_one_that_cant_be_meant_is_named(tmp_path: Path, archive: Archive) -> None:
    root = tmp_path / "dä ta"
    root.mkdir()
    (root / "cifar-10-python.tar.gz").write_bytes(archive.content)
    first = CIFAR10(str(root), []).load()
    deeper = CIFAR10(str(root / "cifar-10-batches-py"), []).load()
    assert torch.equal(first.train_images, deeper.train_images)
    (root / "cifar-10-batches-py").rename(root / "batches")
    with pytest.raises(UserError, match="batches holds CIFAR-10's files themselves: name their folder cifar-10-"):
        CIFAR10(str(root / "batches"), []).load()
    (tmp_path / "link").symlink_to("gone")
    (root / "cifar-10-batches-py").symlink_to("gone too")
    for given, link in ((tmp_path / "link", tmp_path / "link"), (root, root / "cifar-10-batches-py")):
        with pytest.raises(UserError, match=rf"data\.root={given} is not possible: {link} is a link to gone"):
            CIFAR10(str(given), []).load()
    assert (root / "cifar-10-batches-py").is_symlink()


def test_no_home_means_no_cache(tmp_path: Path, archive: Archive, monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(uid: int) -> None:
        raise KeyError(uid)

    (tmp_path / "cifar-10-python.tar.gz").write_bytes(archive.content)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("HOME")
    monkeypatch.setattr(pwd, "getpwuid", unknown)
    assert len(CIFAR10(str(tmp_path), [], "~/.cache/cifar-framework").load().train_labels) == 100
    assert not (tmp_path / "~").exists()
    with pytest.raises(UserError, match=r"data\.root=~/data: there is no home folder that ~ could stand for"):
        CIFAR10("~/data", []).load()


def test_one_mirror_must_stand_in_a_list() -> None:
    with pytest.raises(UserError, match=r"data.source.mirrors=http://x is not possible: it takes a list, \[http://x\]"):
        CIFAR10("data", "http://x")


def test_a_folder_that_cant_be_written_is_named(tmp_path: Path, archive: Archive) -> None:
    (tmp_path / "file").write_text("not a folder")
    root = str(tmp_path / "file" / "data")
    with pytest.raises(UserError) as error:
        CIFAR10(root, []).load()
    assert f"CIFAR-10 in {root} can't be read or written" in str(error.value)
    assert "CIFAR10_ROOT" in str(error.value)


def test_digits_are_scikit_learns() -> None:
    from sklearn.datasets import load_digits

    images = Digits(test_size=360).load()
    assert images.train_images.shape == (1437, 3, 32, 32)
    assert images.test_images.shape == (360, 3, 32, 32)
    assert images.train_images.dtype == torch.uint8
    assert torch.bincount(images.test_labels).tolist() == [36, 37, 35, 37, 36, 36, 36, 36, 35, 36]
    together = torch.cat([images.train_images, images.test_images])
    assert torch.equal(together[:, 0], together[:, 2])
    small = together[:, 0, ::4, ::4]
    assert torch.equal(small.repeat_interleave(4, 1).repeat_interleave(4, 2), together[:, 0])
    pixels, labels = load_digits(return_X_y=True)
    expected = sorted([*row, label] for row, label in zip(np.rint(pixels * 255 / 16).tolist(), labels, strict=True))
    labels = torch.cat([images.train_labels, images.test_labels]).tolist()
    assert sorted([*row, label] for row, label in zip(small.flatten(1).tolist(), labels, strict=True)) == expected


def test_the_digits_split_is_fixed() -> None:
    first, second = Digits(test_size=360).load(), Digits(test_size=360).load()
    assert torch.equal(first.test_images, second.test_images)
    assert first.test_labels[:10].tolist() == [1, 2, 6, 0, 3, 6, 1, 2, 5, 9]


def test_random_images_depend_on_seed_and_sizes_alone() -> None:
    first = RandomImages(num_train=30, num_test=20, num_classes=3, seed=1).load()
    torch.manual_seed(7)
    second = RandomImages(num_train=30, num_test=20, num_classes=3, seed=1).load()
    other = RandomImages(num_train=30, num_test=20, num_classes=3, seed=2).load()
    assert torch.equal(first.train_images, second.train_images)
    assert not torch.equal(first.train_images, other.train_images)
    assert (len(first.train_labels), len(first.test_labels), len(first.class_names)) == (30, 20, 3)
    assert first.train_labels[:5].tolist() == [0, 1, 2, 0, 1]


@pytest.mark.parametrize("key", ["num_train", "num_test", "num_classes"])
def test_impossible_sizes_are_named(key: str) -> None:
    with pytest.raises(UserError, match=f"data.source.{key}=0 "):
        RandomImages(**{"num_train": 1, "num_test": 1, "num_classes": 1, "seed": 0, key: 0})
    with pytest.raises(UserError, match="test_size=0 "):
        Digits(test_size=0)
