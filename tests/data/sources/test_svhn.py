"""SVHN's files: downloaded one by one, verified, and what torchvision reads of them."""

from pathlib import Path
from unittest import mock

import pytest
import torch
from torchvision import datasets

from cifar.base.errors import UserError
from cifar.data.sources import svhn
from cifar.data.sources.svhn import SVHN, read_once
from tests.archives import put_svhn, small_svhn
from tests.data.conftest import Server


def test_both_files_are_downloaded_and_hold_what_torchvision_reads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, server: Server
) -> None:
    files = small_svhn(monkeypatch)
    server.pages = {f"/good/{name}": content for name, content in files.items()}
    server.pages["/bad/test_32x32.mat"] = files["test_32x32.mat"][:-1]
    root, cache = tmp_path / "data", str(tmp_path / "cache")
    images = SVHN(str(root), [f"{server.url}/bad", f"{server.url}/good/"], cache).load()
    assert server.requests == [f"/{place}_32x32.mat" for place in ("bad/train", "good/train", "bad/test", "good/test")]
    assert sorted(path.name for path in root.iterdir()) == ["test_32x32.mat", "train_32x32.mat"]
    for part, pixels, labels in (
        ("train", images.train_images, images.train_labels),
        ("test", images.test_images, images.test_labels),
    ):
        reference = datasets.SVHN(root, split=part)
        assert torch.equal(pixels, torch.from_numpy(reference.data))
        assert torch.equal(labels, torch.from_numpy(reference.labels).long())
    read_once.cache_clear()
    with mock.patch.object(svhn, "read_files", side_effect=AssertionError):
        assert torch.equal(SVHN(str(root), [], cache).load().test_images, images.test_images)


def test_a_damaged_file_and_one_that_cant_be_had_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put_svhn(tmp_path, monkeypatch)
    path = tmp_path / "train_32x32.mat"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(UserError, match=rf"{path} is damaged: .*md5") as error:
        SVHN(str(tmp_path), [], None).load()
    assert "Move it away to download it again" in str(error.value)
    path.unlink()
    with pytest.raises(UserError, match=r"train_32x32\.mat can't be downloaded:\s+data\.source\.mirrors is empty"):
        SVHN(str(tmp_path), [], None).load()
