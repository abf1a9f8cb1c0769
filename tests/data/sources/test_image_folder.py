"""One's own pictures in class folders: what is found, how it is decoded, split and kept, and what is refused."""

import os
import re
import shutil
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import torch
from PIL import Image

from cifar.base.errors import UserError
from cifar.data.files.class_folders import content_of, find_pictures, num_classes_in
from cifar.data.images import Images, checked
from cifar.data.pictures import read_picture
from cifar.data.sources import image_folder
from cifar.data.sources.image_folder import ImageFolder, read_once
from tests.pictures import write_class_folders


def folder_source(root: Path, **changes: object) -> ImageFolder:
    values = {"size": 16, "test_fraction": 0.25, "on_broken": "stop", "content": None, "cache": None}
    return ImageFolder(str(root), **(values | changes))  # type: ignore[arg-type]


def same(one: Images, other: Images) -> bool:
    names = ("train_images", "train_labels", "test_images", "test_labels")
    return one.class_names == other.class_names and all(
        torch.equal(getattr(one, name), getattr(other, name)) for name in names
    )


def test_every_picture_is_what_cifar_predict_makes_of_it_and_lies_in_one_part(tmp_path: Path) -> None:
    root = write_class_folders(tmp_path / "pics")
    images = checked(folder_source(root).load(), "folder")
    assert images.class_names == ["bird", "cat", "dog"]
    assert torch.bincount(images.train_labels).tolist() == [9, 9, 9]
    assert torch.bincount(images.test_labels).tolist() == [3, 3, 3]
    expected = {
        (label, read_picture(path, (16, 16)).numpy().tobytes())
        for label, name in enumerate(images.class_names)
        for path in (root / name).iterdir()
    }
    assert len(expected) == 36
    both = torch.cat([images.train_images, images.test_images]), torch.cat([images.train_labels, images.test_labels])
    found = {(int(label), image.numpy().tobytes()) for image, label in zip(*both, strict=True)}
    assert found == expected
    read_once.cache_clear()
    assert same(images, folder_source(root).load())


def test_a_test_folder_is_the_test_set_and_deeper_folders_belong_to_their_class(tmp_path: Path) -> None:
    write_class_folders(tmp_path / "train", number=4)
    write_class_folders(tmp_path / "test", ["cat"], number=3)
    (tmp_path / "train" / "cat" / "deeper").mkdir()
    shutil.move(tmp_path / "train" / "cat" / "00.jpg", tmp_path / "train" / "cat" / "deeper" / "00.jpg")
    (tmp_path / "train" / ".hidden").mkdir()
    images = folder_source(tmp_path).load()
    assert torch.bincount(images.train_labels).tolist() == [4, 4, 4]
    assert images.test_labels.tolist() == [1, 1, 1]
    assert torch.equal(images.test_images[0], read_picture(tmp_path / "test" / "cat" / "00.jpg", (16, 16)))


def test_a_class_may_be_called_train(tmp_path: Path) -> None:
    write_class_folders(tmp_path, ["train", "plane", "test"], number=4)
    images = folder_source(tmp_path).load()
    assert images.class_names == ["plane", "test", "train"]
    assert len(images.train_labels) + len(images.test_labels) == 12


def test_an_animated_picture_is_its_first_and_a_turned_one_is_upright(tmp_path: Path) -> None:
    root = write_class_folders(tmp_path / "pics", ["a", "b"], number=2)
    frames = [Image.new("RGB", (20, 20), colour) for colour in ("red", "blue")]
    frames[0].save(root / "a" / "02.gif", save_all=True, append_images=frames[1:])
    wide = Image.fromarray(np.repeat(np.array([[[0] * 3, [255] * 3]], dtype=np.uint8), 16, axis=0).repeat(8, axis=1))
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by 90 degrees
    wide.save(root / "b" / "02.png", exif=exif)
    images = folder_source(root).load()
    pixels = torch.cat([images.train_images, images.test_images])
    red = torch.tensor([255, 0, 0]).view(3, 1, 1).expand(3, 16, 16)
    assert sum(bool(((image - red).abs() <= 2).all()) for image in pixels.int()) == 1
    upright = torch.tensor([0] * 8 + [255] * 8).view(1, 16, 1).expand(3, 16, 16)
    assert sum(torch.equal(image.int(), upright) for image in pixels) == 1


def test_broken_pictures_are_all_named_or_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    root = write_class_folders(tmp_path / "pics")
    (root / "cat" / "text.png").write_text("no picture")
    (root / "cat" / "notes.txt").write_text("no picture, and does not say so")
    whole = (root / "dog" / "00.jpg").read_bytes()
    (root / "dog" / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    (root / "bird" / "nothing.gif").touch()
    with pytest.raises(UserError) as error:
        folder_source(root).load()
    lines = str(error.value).splitlines()
    assert lines[0] == f"data.root={root}: 3 of 39 pictures can't be read:"
    paths = [str(root / name) for name in ("bird/nothing.gif", "cat/text.png", "dog/cut.jpg")]
    assert [line.split(":")[0].strip() for line in lines[1:4]] == paths
    assert "data.source.on_broken=skip" in lines[-1]
    assert "not used: cat/notes.txt" in caplog.text
    images = folder_source(root, on_broken="skip").load()
    assert len(images.train_labels) + len(images.test_labels) == 36
    assert all(path in caplog.text for path in paths)
    for path in (root / "bird").iterdir():
        path.write_text("no picture")
    with pytest.raises(UserError, match="no picture of bird can be read"):
        folder_source(root, on_broken="skip").load()


def test_a_class_with_one_picture_keeps_it(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    root = write_class_folders(tmp_path / "pics", ["ant", "bee"], number=1)
    with pytest.raises(UserError, match="No class has two pictures"):
        folder_source(root).load()
    write_class_folders(root, ["cow", "dog"], number=2)
    images = folder_source(root, test_fraction=0.5).load()
    assert torch.bincount(images.train_labels).tolist() == [1, 1, 1, 1]
    assert images.test_labels.tolist() == [2, 3]
    assert "trained on and not tested: ant, bee" in caplog.text


def test_what_is_kept_counts_while_the_files_are_the_same(tmp_path: Path) -> None:
    root, cache = write_class_folders(tmp_path / "pics"), tmp_path / "cache"

    def was_read(**changes: object) -> bool:
        read_once.cache_clear()
        with mock.patch.object(image_folder, "decode_all", wraps=image_folder.decode_all) as decode:
            folder_source(root, cache=str(cache), **changes).load()
        return decode.called

    assert was_read()
    assert not was_read()
    for changes in ({"test_fraction": 0.5}, {"on_broken": "skip"}, {"size": 8}):
        assert was_read(**changes)
    assert was_read()  # the last of a size is kept
    path = root / "cat" / "00.jpg"
    os.utime(path, ns=(0, 0))
    assert was_read()
    shutil.copy(path, root / "cat" / "new.jpg")
    assert was_read()
    path.rename(root / "cat" / "other.jpg")
    assert was_read()
    assert not was_read()


def test_the_content_is_of_names_and_sizes_and_other_pictures_are_refused(tmp_path: Path) -> None:
    root = write_class_folders(tmp_path / "pics", number=4)
    copy = tmp_path / "copy"
    shutil.copytree(root, copy)
    for path in copy.rglob("*.*"):
        os.utime(path, ns=(0, 0))
    content = content_of(str(root))
    assert re.fullmatch("[0-9a-f]{16}", content)
    assert content_of(str(copy)) == content
    assert len(folder_source(copy, content=content).load().class_names) == 3
    (copy / "cat" / "00.jpg").unlink()
    with pytest.raises(UserError, match=rf"other pictures than are meant.*data\.source\.content={content}"):
        folder_source(copy, content=content).load()
    assert len(folder_source(copy).load().class_names) == 3


@pytest.mark.parametrize(
    ("folders", "message"),
    [
        ([], "it has no subfolders, and there must be two classes at least. data=folder takes"),
        (["cat"], "it has one subfolder, cat, and there must be two"),
        (["cat", "dog"], r"there is no picture in \S+/cat, \S+/dog\. Put some in"),
        (["train/cat", "train/dog", "test/cow"], "there is no picture in"),
    ],
)
def test_folders_that_cant_be_meant_are_named(tmp_path: Path, folders: list[str], message: str) -> None:
    for name in folders:
        (tmp_path / name).mkdir(parents=True)
    with pytest.raises(UserError, match=rf"^data\.root={tmp_path}\S*: {message}"):
        find_pictures(str(tmp_path))


def test_a_class_that_is_only_tested_is_named(tmp_path: Path) -> None:
    write_class_folders(tmp_path / "train", ["cat", "dog"], number=1)
    (tmp_path / "test" / "cow").mkdir(parents=True)
    with pytest.raises(UserError, match="test/cow is no class"):
        find_pictures(str(tmp_path))
    (tmp_path / "test" / "cow").rmdir()
    with pytest.raises(UserError, match=f"there is no picture in {tmp_path / 'test'}"):
        find_pictures(str(tmp_path))


def test_a_root_that_is_not_there_or_a_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=rf"data\.root={tmp_path}/pix: there is no such folder\. data=folder takes a"):
        num_classes_in(f"{tmp_path}/pix")
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"file: it is a file\."):
        num_classes_in(f"{tmp_path}/file")


@pytest.mark.parametrize(
    ("key", "value"), [("size", 3), ("size", 2.5), ("test_fraction", 0), ("test_fraction", 0.6), ("on_broken", "no")]
)
def test_impossible_values_are_named(key: str, value: object) -> None:
    with pytest.raises(UserError, match=rf"data\.source\.{key}={value!r} is not possible"):
        folder_source(Path(), **{key: value})
