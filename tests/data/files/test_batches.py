"""Python batches: what they hold, and downloads from a local server with every fault a server can have."""

import hashlib
import pickle
import pwd
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from pathlib import Path
from unittest import mock

import pytest
import torch
from torchvision import datasets

from cifar.base.errors import UserError
from cifar.base.locks import locked
from cifar.data.files import batches
from cifar.data.files.batches import read_batches, read_once
from cifar.data.images import Images
from cifar.data.sources.cifar10 import CIFAR10
from cifar.data.sources.cifar100 import CIFAR100
from tests.archives import COARSE, FINE, NAMES, Archive
from tests.data.conftest import Server


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
        with mock.patch.object(batches, "read_batches", wraps=read_batches) as read:
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


@pytest.mark.parametrize(("labels", "names"), [("fine", FINE), ("coarse", COARSE)])
def test_cifar100_is_downloaded_verified_and_kept_with_the_labels_that_are_asked_for(
    tmp_path: Path, archive100: Archive, server: Server, labels: str, names: list[str]
) -> None:
    server.pages = {"/good": archive100.content}
    root, cache = tmp_path / "data", tmp_path / "cache"
    images = CIFAR100(str(root), labels, [f"{server.url}/absent", f"{server.url}/good"], str(cache)).load()
    assert server.requests == ["/absent", "/good"]
    assert [path.name for path in root.iterdir()] == ["cifar-100-python"]
    assert images.class_names == names
    for is_train, pixels, found in (
        (True, images.train_images, images.train_labels),
        (False, images.test_images, images.test_labels),
    ):
        reference = datasets.CIFAR100(root, train=is_train)
        assert torch.equal(pixels, torch.from_numpy(reference.data).permute(0, 3, 1, 2))
        assert found.tolist() == [label % len(names) for label in reference.targets]
    read_once.cache_clear()
    with mock.patch.object(batches, "read_batches", side_effect=AssertionError):
        again = CIFAR100(str(root), labels, [], str(cache)).load()
    assert torch.equal(again.train_labels, images.train_labels)
    other = CIFAR100(str(root), "fine" if labels == "coarse" else "coarse", [], str(cache)).load()
    assert len(other.class_names) == 120 - len(names)


@pytest.mark.parametrize("name", ["train", "test", "meta"])
def test_a_damaged_file_of_cifar100_is_named(tmp_path: Path, archive100: Archive, name: str) -> None:
    (tmp_path / "cifar-100-python.tar.gz").write_bytes(archive100.content)
    source = CIFAR100(str(tmp_path), "coarse", [], None)
    source.load()
    path = tmp_path / "cifar-100-python" / name
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(UserError, match=f"{path} is damaged") as error:
        source.load()
    assert "a folder that holds cifar-100-python" in str(error.value)
    (tmp_path / "cifar-100-python").rename(tmp_path / "hundred")
    with pytest.raises(UserError, match="holds CIFAR-100's files themselves: name their folder cifar-100-python"):
        CIFAR100(str(tmp_path / "hundred"), "fine", [], None).load()


def test_other_labels_are_not_possible() -> None:
    with pytest.raises(UserError, match=r"data\.source\.labels='corse' is not possible: it takes one of fine, coarse"):
        CIFAR100("data", "corse", [], None)
