"""Pictures of every kind come to the same pixels, and what is none is named."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from cifar.base.errors import UserError
from cifar.data.picture_files import picture_files
from cifar.data.pictures import as_images, read_picture

SIZE = (32, 32)
PIXELS = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
EXPECTED = torch.from_numpy(PIXELS).permute(2, 0, 1)[None]


@pytest.mark.parametrize(
    "picture",
    [
        PIXELS,
        PIXELS[None],
        PIXELS.transpose(2, 0, 1),
        torch.from_numpy(PIXELS),
        torch.from_numpy(PIXELS).permute(2, 0, 1)[None],
        Image.fromarray(PIXELS),
        Image.fromarray(PIXELS).convert("RGBA"),
        [PIXELS],
        (Image.fromarray(PIXELS),),
        PIXELS[:, ::-1][:, ::-1],  # not contiguous
    ],
)
def test_every_form_of_a_picture_gives_its_own_pixels(picture: object) -> None:
    images = as_images(picture, SIZE)
    assert images.dtype == torch.uint8
    torch.testing.assert_close(images, EXPECTED, rtol=0, atol=0)


def test_many_are_one_batch_in_their_order_and_none_is_an_empty_one() -> None:
    other = 255 - PIXELS
    images = as_images([PIXELS, Image.fromarray(other)], SIZE)
    torch.testing.assert_close(images, torch.cat([EXPECTED, 255 - EXPECTED]), rtol=0, atol=0)
    assert as_images([], SIZE).shape == (0, 3, 32, 32)


@pytest.mark.parametrize("kind", ["png", "bmp", "webp", "tiff", "ppm"])
def test_a_file_without_loss_gives_its_pixels(tmp_path: Path, kind: str) -> None:
    Image.fromarray(PIXELS).save(tmp_path / f"a.{kind}", lossless=True)  # which only webp knows
    assert torch.equal(read_picture(tmp_path / f"a.{kind}", SIZE), EXPECTED[0])


def test_another_size_is_the_middle_square_resized_once() -> None:
    wide = Image.fromarray(np.random.default_rng(1).integers(0, 256, (64, 100, 3), dtype=np.uint8))
    by_hand = wide.resize((32, 32), Image.Resampling.BICUBIC, box=(18, 0, 82, 64))
    assert torch.equal(as_images(wide, SIZE)[0], torch.from_numpy(np.array(by_hand)).permute(2, 0, 1))
    assert torch.equal(as_images(np.asarray(wide), SIZE), as_images(wide, SIZE))


def test_colours_depths_and_turns_are_as_a_viewer_shows_them(tmp_path: Path) -> None:
    grey = Image.fromarray(PIXELS[:, :, 0])
    for picture in (grey, Image.fromarray(PIXELS[:, :, 0].astype(np.uint16) * 257)):  # 8 and 16 bits
        images = as_images(picture, SIZE)
        assert all(torch.equal(images[0, channel], EXPECTED[0, 0]) for channel in range(3))
    clear = Image.new("RGBA", (40, 40), (0, 0, 0, 0))
    assert int(as_images(clear, SIZE).min()) == 255
    clear.save(tmp_path / "clear.gif", transparency=0)
    assert int(read_picture(tmp_path / "clear.gif", SIZE).min()) == 255
    turned = Image.Exif()
    turned[0x0112] = 3  # upside down
    Image.fromarray(PIXELS).save(tmp_path / "turned.png", exif=turned)
    assert torch.equal(read_picture(tmp_path / "turned.png", SIZE), EXPECTED[0].flip(1, 2))
    assert as_images(Image.fromarray(PIXELS).convert("CMYK"), SIZE).shape == (1, 3, 32, 32)


@pytest.mark.parametrize(
    ("picture", "problem"),
    [
        (PIXELS / 255, "float64.*normalises"),
        (PIXELS[:, :, :2], r"\(32, 32, 2\) are not possible"),
        (PIXELS[:3], "two ways"),
        ("cat.png", "A str is no picture"),
        (Image.new("F", (32, 32)), "no known range"),
    ],
)
def test_what_is_no_picture_is_one_message(picture: object, problem: str) -> None:
    with pytest.raises(UserError, match=problem):
        as_images(picture, SIZE)


def test_a_file_that_is_none_is_named(tmp_path: Path) -> None:
    (tmp_path / "text.png").write_text("no picture")
    Image.fromarray(PIXELS).save(tmp_path / "whole.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "whole.png").read_bytes()[:1500])
    for name in ("text.png", "cut.png", "absent.png"):
        with pytest.raises(UserError, match=name):
            read_picture(tmp_path / name, SIZE)


def test_a_folder_stands_for_the_pictures_in_it(tmp_path: Path) -> None:
    for name in ("b/2.JPG", "b/1.png", "a.webp", "notes.txt", ".hidden.png", ".git/x.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    names = [str(path.relative_to(tmp_path)) for path in picture_files([tmp_path, tmp_path / "a.webp"])]
    assert names == ["a.webp", "b/1.png", "b/2.JPG"]
    assert picture_files(["absent.png"]) == [Path("absent.png")]
