"""The fast forms of convolution against torch's own in float64, forward and backward."""

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cifar.base.errors import UserError
from cifar.models.resnet import resnet50
from cifar.models.vgg import vgg16
from cifar.training.devices import fast_conv
from cifar.training.devices.fast_conv import (
    ALGORITHMS,
    MIN_GROUPED_TILES,
    PAIR,
    PATCH,
    FastConv2d,
    add_up_inputs,
    arithmetic,
    bilinear,
    convolve_rows,
    cut_inputs,
    join_outputs,
    speed_up,
    split_outputs,
)

FACTOR = 20  # of torch's own error against float64, which a fast form may have
LAYERS = {  # in and out channels, kernel size, stride, and the size of the map
    "pointwise": (48, 20, 1, 1, 8),
    "strided pointwise": (48, 20, 1, 2, 7),
    "whole map of 2": (40, 64, 3, 1, 2),
    "whole map of 4": (40, 64, 3, 1, 4),
    "tiles": (64, 128, 3, 1, 8),
    "tiles beyond the map": (128, 64, 3, 1, 7),
}
every_layer = pytest.mark.parametrize("kind", LAYERS)


def fast_layer(kind: str, has_bias: bool = True) -> tuple[FastConv2d, Tensor]:
    """Return a sped-up layer and inputs for it, in channels_last memory."""
    torch.manual_seed(0)
    in_channels, out_channels, kernel_size, stride, size = LAYERS[kind]
    layer = nn.Conv2d(in_channels, out_channels, kernel_size, stride, padding=kernel_size // 2, bias=has_bias)
    speed_up(layer)
    assert isinstance(layer, FastConv2d)
    inputs = torch.randn(5, in_channels, size, size).to(memory_format=torch.channels_last)
    assert layer.choose_form(inputs) is not None
    return layer, inputs


def plain_copy(layer: nn.Module) -> nn.Module:
    """Return the layer, or the model, with torch's own convolutions."""
    model = copy.deepcopy(layer)
    for module in model.modules():
        if isinstance(module, FastConv2d):
            module.__class__ = nn.Conv2d  # type: ignore[assignment]
    return model


def relative_error(value: Tensor, reference: Tensor) -> float:
    """Return the norm of the difference over that of the reference."""
    return float((value.detach().double() - reference.detach()).norm() / reference.detach().norm())


def outputs_and_gradients(model: nn.Module, inputs: Tensor, direction: Tensor) -> list[Tensor]:
    """Return the outputs, and the gradients for inputs and parameters of their product with `direction`."""
    leaf = inputs.detach().requires_grad_()
    outputs = model(leaf)
    wanted = [leaf, *(parameter for parameter in model.parameters() if parameter.requires_grad)]
    return [outputs, *torch.autograd.grad(outputs, wanted, direction.to(outputs.dtype))]


def assert_is_convolution(layer: nn.Module, inputs: Tensor, direction: Tensor | None = None) -> None:
    """Check outputs and gradients against float64, with an error like that of torch's own float32."""
    plain = plain_copy(layer)
    if direction is None:
        direction = torch.randn(plain(inputs).shape, generator=torch.Generator().manual_seed(1))
    exact = outputs_and_gradients(copy.deepcopy(plain).double(), inputs.double(), direction)
    errors = {}
    for name, model in (("fast", layer), ("plain", plain)):
        values = outputs_and_gradients(model, inputs, direction)
        assert [value.shape for value in values] == [value.shape for value in exact]
        errors[name] = [relative_error(*pair) for pair in zip(values, exact, strict=True)]
    assert max(errors["fast"]) < 1e-5
    for fast, own in zip(errors["fast"], errors["plain"], strict=True):
        assert fast < FACTOR * max(own, 1e-7)


@pytest.mark.parametrize("has_bias", [True, False])
@every_layer
def test_every_form_is_the_convolution(kind: str, has_bias: bool) -> None:
    assert_is_convolution(*fast_layer(kind, has_bias))


@every_layer
def test_inputs_weights_and_gradients_in_any_memory_are_taken(kind: str) -> None:
    layer, inputs = fast_layer(kind)
    wide = torch.randn(5, inputs.shape[1], 2 * inputs.shape[2], 2 * inputs.shape[3])
    for others in (inputs.contiguous(), wide[:, :, ::2, ::2], inputs[:1].expand(5, -1, -1, -1)):
        assert_is_convolution(layer, others)
    shape = layer(inputs).shape
    for direction in (torch.ones(()).expand(shape), torch.randn(shape), torch.randn(shape[::-1]).permute(3, 2, 1, 0)):
        assert_is_convolution(layer, inputs, direction)
    layer.to(memory_format=torch.channels_last)
    assert_is_convolution(layer, inputs)


@pytest.mark.parametrize("has_bias", [True, False])
@pytest.mark.parametrize("kind", ["pointwise", "strided pointwise", "whole map of 2"])
def test_in_bf16_a_form_has_at_most_three_times_the_error_of_torchs_own(kind: str, has_bias: bool) -> None:
    layer, inputs = fast_layer(kind, has_bias)
    plain = plain_copy(layer)
    direction = torch.randn(plain(inputs).shape, generator=torch.Generator().manual_seed(1))
    exact = outputs_and_gradients(copy.deepcopy(plain).double(), inputs.double(), direction)
    errors = []
    for model in (layer, plain):
        with torch.autocast("cpu", torch.bfloat16):
            values = outputs_and_gradients(model, inputs, direction)
        assert values[0].dtype == torch.bfloat16
        assert [value.dtype for value in values[1:]] == [torch.float32] * (len(values) - 1)  # inputs, weight, bias
        errors.append([relative_error(*pair) for pair in zip(values, exact, strict=True)])
    assert all(0 < fast < 3 * own < 0.02 for fast, own in zip(*errors, strict=True))


@pytest.mark.parametrize("kind", ["whole map of 4", "tiles", "tiles beyond the map"])
def test_in_bf16_larger_tiles_are_left_to_torch(kind: str) -> None:
    layer, inputs = fast_layer(kind)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(layer(inputs), plain_copy(layer)(inputs))


def test_many_maps_of_2_in_bf16() -> None:
    layer, inputs = fast_layer("whole map of 2")
    many = inputs.repeat(MIN_GROUPED_TILES, 1, 1, 1)
    with torch.autocast("cpu", torch.bfloat16):
        few, all_of_them = layer(inputs), layer(many)
    torch.testing.assert_close(all_of_them[: len(few)], few, rtol=0.02, atol=0.02)


@pytest.mark.parametrize(
    ("in_channels", "out_channels", "kernel_size", "size", "is_fast"),
    [
        (40, 64, 3, 2, True),
        (40, 63, 3, 2, False),
        (40, 63, 3, 4, False),
        (256, 32, 3, 4, True),
        (64, 128, 3, 16, True),
        (64, 127, 3, 16, False),
        (64, 128, 3, 3, True),
        (64, 128, 3, 1, False),
        (64, 128, 3, 17, False),
        (64, 128, 5, 4, False),
    ],
)
def test_a_form_is_chosen_by_shape(
    in_channels: int, out_channels: int, kernel_size: int, size: int, is_fast: bool
) -> None:
    layer = nn.Conv2d(in_channels, out_channels, kernel_size, padding=kernel_size // 2)
    speed_up(layer)
    assert isinstance(layer, FastConv2d)
    assert layer.choose_form(torch.zeros(1, in_channels, size, size)) is (bilinear if is_fast else None)


@pytest.mark.parametrize(("kind", "num_tiles"), [("whole map of 2", 1), ("tiles", 4)])
def test_many_tiles_are_multiplied_as_a_grouped_convolution(
    kind: str, num_tiles: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    layer, inputs = fast_layer(kind)
    many = torch.randn(-(-MIN_GROUPED_TILES // num_tiles), *inputs.shape[1:])
    groups: list[int] = []

    def spy(*arguments: Any, **options: Any) -> Tensor:
        groups.append(options["groups"])
        return convolve_rows(*arguments, **options)

    monkeypatch.setattr(fast_conv, "convolve_rows", spy)
    assert_is_convolution(layer, many)
    assert groups == [len(ALGORITHMS[2 if num_tiles == 1 else PATCH].for_weight)] * 2  # forward and backward


@pytest.mark.parametrize("size", [2, 4, 5, 8, 15])
def test_gradients_are_put_together_as_inputs_and_outputs_are_cut(size: int) -> None:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(-9, 10, (3, 5, size, size), generator=generator)
    for apart, together in ((cut_inputs, add_up_inputs), (split_outputs, join_outputs)):
        tiles = apart(images)
        others = torch.randint(-9, 10, tiles.shape, generator=generator)
        assert (tiles * others).sum() == (images * together(others, size)).sum()


@every_layer
def test_outputs_and_gradients_stay_in_channels_last_memory(kind: str) -> None:
    layer, inputs = fast_layer(kind)
    outputs = layer(inputs.requires_grad_())
    outputs.sum().backward()
    assert outputs.is_contiguous(memory_format=torch.channels_last)
    assert inputs.grad is not None
    assert inputs.grad.is_contiguous(memory_format=torch.channels_last)


@every_layer
def test_outputs_may_be_changed_in_place(kind: str) -> None:
    layer, inputs = fast_layer(kind)
    assert_is_convolution(nn.Sequential(layer, nn.ReLU(inplace=True)), inputs)
    outputs = layer(inputs)
    outputs += 1
    outputs.sum().backward()
    assert layer.bias is not None
    assert layer.bias.grad is not None
    torch.testing.assert_close(layer.bias.grad, torch.full_like(layer.bias, outputs[:, 0].numel()))


@every_layer
def test_what_is_frozen_gets_no_gradient_and_the_rest_the_same(kind: str) -> None:
    layer, inputs = fast_layer(kind)
    with torch.inference_mode():
        layer(inputs)  # leaves nothing behind that training could not use
    for frozen in (["weight"], ["bias"], ["weight", "bias"]):
        other = copy.deepcopy(layer)
        for name in frozen:
            getattr(other, name).requires_grad_(False)
        assert_is_convolution(other, inputs)
    layer(inputs).sum().backward()
    expected = plain_copy(layer)
    expected.zero_grad()
    expected(inputs).sum().backward()
    for parameter, own in zip(layer.parameters(), expected.parameters(), strict=True):
        torch.testing.assert_close(parameter.grad, own.grad, rtol=1e-4, atol=1e-3)


@every_layer
def test_second_derivatives_are_refused(kind: str) -> None:
    layer, inputs = fast_layer(kind)
    for make_loss in (torch.sum, torch.var):
        loss = make_loss(layer(inputs.requires_grad_()))
        with pytest.raises(UserError, match=r"device\.fast_conv=false has them"):
            torch.autograd.grad(loss, inputs, create_graph=True)


@every_layer
def test_a_backward_pass_under_autocast_is_that_of_the_forward_pass(kind: str) -> None:
    layer, inputs = fast_layer(kind)
    gradients = []
    for is_enabled in (False, True):
        leaf = inputs.detach().requires_grad_()
        loss = layer(leaf).square().sum()
        with torch.autocast("cpu", torch.bfloat16, enabled=is_enabled):
            gradients.append(torch.autograd.grad(loss, [leaf, *layer.parameters()]))
    for own, under_autocast in zip(*gradients, strict=True):
        assert torch.equal(own, under_autocast)


def test_the_matrices_save_the_multiplications_that_they_promise() -> None:
    assert [(size, len(algorithm.for_weight)) for size, algorithm in ALGORITHMS.items()] == [(2, 9), (4, 36), (6, 36)]
    taps, pixels = torch.tensor([2.0, 3.0, 5.0]), torch.tensor([7.0, 11.0])
    outputs = PAIR.for_outputs @ ((PAIR.for_weight @ taps) * (PAIR.for_inputs @ pixels))
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
    assert layer.choose_form(inputs[:, :, :, :7]) is None
    assert layer.choose_form(inputs, torch.bfloat16) is None
    assert arithmetic(inputs, layer.weight) == torch.float32
    assert arithmetic(inputs.double(), layer.weight) is None
    assert arithmetic(inputs, layer.weight.double()) is None
    assert arithmetic(inputs.bfloat16(), layer.weight) is None
    for dtype, expected in ((torch.bfloat16, torch.bfloat16), (torch.float16, None)):
        with torch.autocast("cpu", dtype):
            assert arithmetic(inputs, layer.weight) == expected
            assert layer(inputs).dtype == dtype
    strided = nn.Conv2d(128, 128, 3, 2, padding=1)
    speed_up(strided)
    assert strided.choose_form(inputs) is None  # type: ignore[operator]


@pytest.mark.parametrize("shape", [(128, 8, 8), (0, 128, 8, 8)])
def test_an_image_without_its_batch_and_a_batch_without_images_are_left_to_torch(shape: tuple[int, ...]) -> None:
    layer = nn.Conv2d(128, 64, 3, padding=1)
    inputs = torch.randn(shape)
    expected = layer(inputs)
    speed_up(layer)
    assert torch.equal(layer(inputs), expected)


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
