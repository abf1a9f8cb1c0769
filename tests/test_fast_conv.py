"""The fast forms of convolution against torch's own in float64, forward and backward."""

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cifar.fast_conv import (
    MIN_GROUPED_TILES,
    FastConv2d,
    add_up,
    bilinear,
    cut,
    join,
    pair_matrices,
    plane_matrices,
    pointwise,
    speed_up,
    split,
)
from cifar.models.resnet import resnet50
from cifar.models.vgg import vgg16


def relative_error(value: Tensor, reference: Tensor) -> float:
    """Return the norm of the difference over that of the reference."""
    return float((value.detach().double() - reference.detach()).norm() / reference.detach().norm())


def assert_is_convolution(layer: nn.Conv2d, inputs: Tensor, factor: float) -> None:
    """Check outputs and gradients against float64, with an error at most `factor` times that of torch's float32."""
    errors = {}
    for kind in ("fast", "plain"):
        model = copy.deepcopy(layer)
        if kind == "plain":
            model.__class__ = nn.Conv2d
        exact = copy.deepcopy(model).double()
        exact.__class__ = nn.Conv2d
        leaf, exact_leaf = inputs.clone().requires_grad_(), inputs.double().requires_grad_()
        outputs, expected = model(leaf), exact(exact_leaf)
        assert outputs.shape == expected.shape
        torch.manual_seed(1)
        direction = torch.randn_like(outputs)
        outputs.backward(direction)
        expected.backward(direction.double())
        assert leaf.grad is not None
        assert exact_leaf.grad is not None
        pairs = [(outputs, expected), (leaf.grad, exact_leaf.grad)]
        for parameter, other in zip(model.parameters(), exact.parameters(), strict=True):
            assert parameter.grad is not None
            assert other.grad is not None
            pairs.append((parameter.grad, other.grad))
        errors[kind] = [relative_error(*pair) for pair in pairs]
    assert max(errors["fast"]) < 1e-5
    for fast, plain in zip(errors["fast"], errors["plain"], strict=True):
        assert fast < factor * max(plain, 1e-7)


@pytest.mark.parametrize("has_bias", [True, False])
@pytest.mark.parametrize(
    ("in_channels", "out_channels", "kernel_size", "stride", "size", "expected"),
    [
        (48, 20, 1, 1, 8, "pointwise"),
        (48, 20, 1, 2, 7, "pointwise"),
        (40, 256, 3, 1, 2, bilinear),
        (40, 256, 3, 1, 4, bilinear),
        (128, 64, 3, 1, 8, bilinear),
        (128, 64, 3, 1, 16, bilinear),
        (256, 32, 3, 1, 4, bilinear),
        (128, 64, 3, 1, 32, None),
        (16, 24, 3, 1, 8, None),
        (128, 24, 3, 2, 8, None),
        (128, 256, 5, 1, 4, None),
        (64, 128, 3, 1, 7, bilinear),
        (64, 128, 3, 1, 15, bilinear),
    ],
)
def test_every_form_is_the_convolution(
    in_channels: int, out_channels: int, kernel_size: int, stride: int, size: int, expected: object, has_bias: bool
) -> None:
    torch.manual_seed(0)
    layer = nn.Conv2d(in_channels, out_channels, kernel_size, stride, padding=kernel_size // 2, bias=has_bias)
    speed_up(layer)
    inputs = torch.randn(5, in_channels, size, size).to(memory_format=torch.channels_last)
    form = layer.choose_form(inputs)  # type: ignore[operator]
    assert form is not None if expected == "pointwise" else form is expected
    assert_is_convolution(layer, inputs, factor=20)


@pytest.mark.parametrize("size", [2, 8])
def test_many_tiles_are_multiplied_as_a_grouped_convolution(size: int) -> None:
    torch.manual_seed(0)
    layer = nn.Conv2d(128, 64, 3, padding=1)
    speed_up(layer)
    num_images = -(-MIN_GROUPED_TILES // (1 if size == 2 else 4))
    inputs = torch.randn(num_images, 128, size, size).to(memory_format=torch.channels_last)
    assert_is_convolution(layer, inputs, factor=20)


@pytest.mark.parametrize("size", [2, 4, 5, 8, 15])
def test_gradients_are_put_together_as_inputs_and_outputs_are_cut(size: int) -> None:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(-9, 10, (3, 5, size, size), generator=generator)
    for apart, together in ((cut, add_up), (split, join)):
        tiles = apart(images)
        others = torch.randint(-9, 10, tiles.shape, generator=generator)
        assert (tiles * others).sum() == (images * together(others, size)).sum()


def test_outputs_stay_in_channels_last_memory() -> None:
    inputs = torch.randn(3, 128, 4, 4).to(memory_format=torch.channels_last)
    for outputs in (
        pointwise(inputs, torch.randn(8, 128, 1, 1), None),
        bilinear(inputs, torch.randn(8, 128, 3, 3), None),
        bilinear(inputs.repeat(1, 1, 2, 2), torch.randn(8, 128, 3, 3), None),
    ):
        assert outputs.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize(("kernel_size", "stride", "size"), [(1, 1, 8), (1, 2, 8), (3, 1, 4), (3, 1, 8)])
def test_gradients_stay_in_channels_last_memory(kernel_size: int, stride: int, size: int) -> None:
    layer = nn.Conv2d(128, 64, kernel_size, stride, padding=kernel_size // 2)
    speed_up(layer)
    inputs = torch.randn(3, 128, size, size).to(memory_format=torch.channels_last).requires_grad_()
    layer(inputs).sum().backward()
    assert inputs.grad is not None
    assert inputs.grad.is_contiguous(memory_format=torch.channels_last)


def test_inputs_in_any_memory_are_taken() -> None:
    inputs, weight = torch.randn(3, 128, 8, 8), torch.randn(16, 128, 3, 3)
    torch.testing.assert_close(
        bilinear(inputs, weight, None), F.conv2d(inputs, weight, padding=1), rtol=1e-4, atol=1e-2
    )
    torch.testing.assert_close(
        bilinear(inputs[:, :, ::2, ::2], weight, None),
        F.conv2d(inputs[:, :, ::2, ::2], weight, padding=1),
        rtol=1e-4,
        atol=1e-2,
    )


def test_the_matrices_save_the_multiplications_that_they_promise() -> None:
    assert [len(plane_matrices(size)[0]) for size in (2, 4, 6)] == [9, 36, 36]
    for_weight, for_inputs, for_outputs = pair_matrices()
    taps, pixels = torch.tensor([2.0, 3.0, 5.0]), torch.tensor([7.0, 11.0])
    outputs = for_outputs @ ((for_weight @ taps) * (for_inputs @ pixels))
    assert outputs.tolist() == [3 * 7 + 5 * 11, 2 * 7 + 3 * 11]


def test_other_layers_dtypes_and_contexts_are_left_to_torch() -> None:
    model = nn.Sequential(
        nn.Conv2d(128, 128, 3, padding=1, groups=2),
        nn.Conv2d(128, 128, 3, padding=2, dilation=2),
        nn.Conv2d(128, 128, 3, padding=1, padding_mode="reflect"),
        nn.Conv2d(128, 128, 3, padding="same"),
        nn.Conv2d(128, 128, 3, padding=1),
    )
    speed_up(model)
    assert [type(layer) for layer in model] == [nn.Conv2d] * 4 + [FastConv2d]
    layer = model[-1]
    assert isinstance(layer, FastConv2d)
    inputs = torch.randn(1, 128, 8, 8)
    assert layer.choose_form(inputs) is bilinear
    assert layer.choose_form(inputs.double()) is None
    with torch.autocast("cpu", torch.bfloat16):
        assert layer.choose_form(inputs) is None
        assert layer(inputs).dtype == torch.bfloat16


@pytest.mark.parametrize("shape", [(128, 8, 8), (0, 128, 8, 8)])
def test_an_image_without_its_batch_and_a_batch_without_images_are_left_to_torch(shape: tuple[int, ...]) -> None:
    layer = nn.Conv2d(128, 64, 3, padding=1)
    inputs = torch.randn(shape)
    expected = layer(inputs)
    speed_up(layer)
    assert torch.equal(layer(inputs), expected)


@pytest.mark.parametrize("size", [2, 8])
def test_second_derivatives_are_refused(size: int) -> None:
    layer = nn.Conv2d(128, 64, 3, padding=1)
    speed_up(layer)
    inputs = torch.randn(2, 128, size, size, requires_grad=True)
    (first,) = torch.autograd.grad(layer(inputs).square().sum(), inputs, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        first.square().sum().backward()


@pytest.mark.parametrize("build", [resnet50, vgg16])
def test_a_model_keeps_its_keys_its_shapes_and_its_losses(build: type[nn.Module]) -> None:
    torch.manual_seed(0)
    plain = build().train()
    fast = copy.deepcopy(plain)
    speed_up(fast)
    fast.to(memory_format=torch.channels_last)
    assert {key: value.shape for key, value in fast.state_dict().items()} == {
        key: value.shape for key, value in plain.state_dict().items()
    }
    inputs, labels = torch.randn(20, 3, 32, 32), torch.randint(0, 10, (20,))
    losses = []
    for model in (plain, fast):
        torch.manual_seed(1)  # the same dropout
        losses.append(float(F.cross_entropy(model(inputs), labels).detach()))
    assert losses[1] == pytest.approx(losses[0], abs=1e-4)
