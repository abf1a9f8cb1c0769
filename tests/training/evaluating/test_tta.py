"""The views of test-time augmentation, and the accuracy beside the plain one."""

import pytest
import torch
from torchvision.transforms import functional

from cifar.training.evaluating.tta import views


@pytest.mark.parametrize(("tta", "num_views"), [("none", 1), ("mirror", 2), ("mirror_translate", 6)])
def test_the_weights_add_up_and_the_first_view_is_the_image(tta: str, num_views: int) -> None:
    inputs = torch.randn(2, 3, 32, 32)
    found = views(inputs, tta)
    assert len(found) == num_views
    assert sum(weight for weight, _ in found) == 1
    assert found[0][1] is inputs
    assert {view.shape for _, view in found} == {inputs.shape}


def test_the_views_are_torchvisions_flips_and_shifts() -> None:
    inputs = torch.randn(2, 3, 32, 32)
    padded = functional.pad(inputs, [1], padding_mode="reflect")
    expected = [inputs, functional.crop(padded, 2, 2, 32, 32), functional.crop(padded, 0, 0, 32, 32)]
    found = [view for _, view in views(inputs, "mirror_translate")]
    for index, image in enumerate(expected):
        assert torch.equal(found[2 * index], image)
        assert torch.equal(found[2 * index + 1], functional.hflip(image))
    assert [weight for weight, _ in views(inputs, "mirror_translate")] == [0.25, 0.25, 0.125, 0.125, 0.125, 0.125]
