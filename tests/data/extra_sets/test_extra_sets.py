"""CIFAR-10.1 and CIFAR-10-C from small files of their published form, and what is said of files that are none."""

from pathlib import Path

import numpy as np
import pytest
import torch

from cifar.base.errors import UserError
from cifar.data.extra_sets.cifar10_1 import CIFAR10_1
from cifar.data.extra_sets.cifar10_c import CIFAR10_C
from cifar.data.extra_sets.extra_set import Part, of_run
from cifar.data.sources.cifar10 import NAMES
from tests.extra_files import write_cifar10_1, write_cifar10_c


@pytest.mark.parametrize("folder", ["", "CIFAR-10.1"])
def test_cifar10_1_is_what_its_files_hold(tmp_path: Path, folder: str) -> None:
    write_cifar10_1(tmp_path / folder)
    (part,) = CIFAR10_1(str(tmp_path)).parts()
    pixels = np.load(tmp_path / folder / "cifar10.1_v6_data.npy")
    assert torch.equal(part.images, torch.from_numpy(pixels).permute(0, 3, 1, 2))
    assert part.labels.dtype == torch.int64
    assert part.labels.tolist() == [index % 10 for index in range(40)]


@pytest.mark.parametrize("folder", ["", "CIFAR-10-C"])
def test_every_corruption_has_five_severities_one_after_the_other(tmp_path: Path, folder: str) -> None:
    write_cifar10_c(tmp_path / folder, ["fog", "snow"])
    found = [*CIFAR10_C(str(tmp_path), ["snow", "fog"], [1, 3, 5]).parts()]
    assert [(part.kind, part.level) for part in found] == [
        ("snow", 1), ("snow", 3), ("snow", 5), ("fog", 1), ("fog", 3), ("fog", 5),
    ]  # fmt: skip
    pixels = np.load(tmp_path / folder / "fog.npy")
    assert torch.equal(found[4].images, torch.from_numpy(pixels[40:60]).permute(0, 3, 1, 2))
    assert found[4].labels.tolist() == [index % 10 for index in range(20)]


def test_missing_files_are_named_with_where_to_get_and_to_put_them(tmp_path: Path) -> None:
    with pytest.raises(UserError) as error:
        CIFAR10_1(str(tmp_path)).refuse_missing()
    parts = (
        "test_on.cifar10_1: cifar10.1_v6_data.npy, cifar10.1_v6_labels.npy can't be found in",
        f"{tmp_path} or ",
        str(tmp_path / "CIFAR-10.1"),
        "https://github.com/modestyachts/CIFAR-10.1",
        "test_on.cifar10_1.root=",
    )
    assert all(part in str(error.value) for part in parts)
    write_cifar10_c(tmp_path / "CIFAR-10-C", ["fog"])
    with pytest.raises(UserError, match=r"^test_on\.cifar10_c: snow\.npy can't be found in .*zenodo\.org") as error:
        CIFAR10_C(str(tmp_path), ["fog", "snow"], [1]).refuse_missing()
    with pytest.raises(UserError, match=r"a\.npy, b\.npy, c\.npy, d\.npy, e\.npy and 2 more can't be found"):
        CIFAR10_C(str(tmp_path), [*"abcdefg"], [1]).refuse_missing()
    CIFAR10_C(str(tmp_path), ["fog"], [1]).refuse_missing()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (
            "fog.npy",
            np.zeros((50, 32, 32, 3), np.float32),
            r"float32 of shape \(50, 32, 32, 3\), and not \(N, 32",
        ),
        ("fog.npy", np.zeros((50, 3, 32, 32), np.uint8), r"shape \(50, 3, 32, 32\)"),
        ("fog.npy", np.zeros((40, 32, 32, 3), np.uint8), r"fog\.npy holds 40 images, and .*labels\.npy 50 labels"),
        ("labels.npy", np.zeros(50, np.float32), r"labels\.npy holds float32 of shape \(50,\)"),
        ("labels.npy", np.full(50, 10), r"labels\.npy holds 50 numbers, and not five times the labels from 0 to 9"),
        ("labels.npy", np.zeros(49, np.uint8), r"holds 49 numbers"),
        ("fog.npy", np.array([{"code": 1}], dtype=object), "can't be read"),
        ("fog.npy", b"no array", "can't be read"),
        ("fog.npy", b"", "can't be read"),
    ],
)
def test_files_that_hold_something_else_are_named(tmp_path: Path, name: str, content: object, message: str) -> None:
    write_cifar10_c(tmp_path, ["fog"], num_images=10)
    if isinstance(content, bytes):
        (tmp_path / name).write_bytes(content)
    else:
        np.save(tmp_path / name, content)  # type: ignore[arg-type]
    with pytest.raises(UserError, match=message):
        [*CIFAR10_C(str(tmp_path), ["fog"], [1]).parts()]


def test_labels_of_cifar10_1_that_are_none_are_named(tmp_path: Path) -> None:
    write_cifar10_1(tmp_path)
    np.save(tmp_path / "cifar10.1_v6_labels.npy", np.arange(40))
    with pytest.raises(UserError, match="no label from 0 to 9 for each of the 40 images"):
        [*CIFAR10_1(str(tmp_path)).parts()]


@pytest.mark.parametrize(
    ("corruptions", "severities", "message"),
    [
        ("fog", [1], "corruptions='fog' is not possible"), ([], [1], r"corruptions=\[\] is not possible"),
        (["fog"], [0], r"severities=\[0\] is not"), (["fog"], [], r"severities=\[\] is not"),
        (["fog"], 3, "severities=3 is not possible: it takes a list of 1 to 5"),
    ],
)  # fmt: skip
def test_impossible_choices_are_named(corruptions: list[str], severities: list[int], message: str) -> None:
    with pytest.raises(UserError, match=rf"test_on\.cifar10_c\.{message}"):
        CIFAR10_C("data", corruptions, severities)


def test_a_run_on_some_classes_sees_their_images_with_its_own_numbers() -> None:
    images = torch.arange(10, dtype=torch.uint8).view(10, 1, 1, 1).expand(10, 3, 2, 2)
    part = of_run(Part(images, torch.arange(10), "fog", 3), NAMES, ["dog", "cat"])
    assert part.images[:, 0, 0, 0].tolist() == [3, 5]  # cat and dog
    assert part.labels.tolist() == [1, 0]
    assert (part.kind, part.level) == ("fog", 3)
