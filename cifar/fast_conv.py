"""Faster float32 convolutions on a CPU, for the small maps of CIFAR-10: `device.fast_conv=true|false`.

Three ways to turn a convolution into a few large matrix products, each for the shapes at which it pays, on activations
in channels_last memory. A layer keeps its parameters, so checkpoints don't change; sums are rounded in another order.

- 1×1: one product over the channels.
- 3×3 on a whole 2×2 or 4×4 map: a bilinear algorithm with 9 products for the map instead of 36 taps, or 36 instead of
  144: Winograd's in each direction, with the zeros of the padding left out.
- 3×3 on larger maps: Winograd's F(4×4, 3×3), which has 36 products per tile of 4×4 outputs instead of 144
  (Lavin & Gray, arXiv:1509.09308, section 4.3).
"""

from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

MIN_MAP_CHANNELS = 64  # output channels from which the whole-map form pays
MIN_TILE_CHANNELS = 128  # input channels from which tiles pay
MAX_TILED_SIZE = 16
TILE = 4  # outputs of a tile, in each direction
PATCH = TILE + 2  # inputs that they depend on

Form = Callable[[Tensor, Tensor, Tensor | None], Tensor]


class FastConv2d(nn.Conv2d):
    """A convolution that takes the fastest known form for the shape at hand, and torch's where there is none."""

    def forward(self, inputs: Tensor) -> Tensor:  # (N, C, H, W) -> (N, out, H', W')
        """Return the convolution of float32 inputs on a CPU; anything else is torch's affair."""
        form = self.choose_form(inputs)
        return super().forward(inputs) if form is None else form(inputs, self.weight, self.bias)

    def choose_form(self, inputs: Tensor) -> Form | None:
        """Return the form for inputs of this shape, None for torch's own."""
        if inputs.device.type != "cpu" or inputs.dtype != torch.float32 or torch.is_autocast_enabled("cpu"):
            return None
        if inputs.dim() != 4 or inputs.numel() == 0:
            return None
        height, width = inputs.shape[2:]
        if self.kernel_size == (1, 1) and self.padding == (0, 0):
            stride = self.stride
            return lambda x, weight, bias: pointwise(x[:, :, :: stride[0], :: stride[1]], weight, bias)
        if self.kernel_size != (3, 3) or self.padding != (1, 1) or self.stride != (1, 1) or height != width:
            return None
        if height in (2, 4) and self.out_channels >= MIN_MAP_CHANNELS:
            return whole_map
        if height <= MAX_TILED_SIZE and self.in_channels >= MIN_TILE_CHANNELS:
            return tiled
        return None


def speed_up(model: nn.Module) -> None:
    """Let every ordinary convolution of the model choose its form; parameters, hooks and keys stay what they are."""
    for module in model.modules():
        is_ordinary = type(module) is nn.Conv2d and module.groups == 1 and module.dilation == (1, 1)
        if is_ordinary and module.padding_mode == "zeros" and not isinstance(module.padding, str):
            module.__class__ = FastConv2d


def pointwise(inputs: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Return the 1×1 convolution of (N, C, H, W) with (out, C, 1, 1)."""
    return F.linear(inputs.permute(0, 2, 3, 1), weight.flatten(1), bias).permute(0, 3, 1, 2)


def winograd_matrices() -> tuple[Tensor, Tensor, Tensor]:
    """Return G (6, 3), Bᵀ (6, 6) and Aᵀ (4, 6), with outputs = Aᵀ[(G weight) ⊙ (Bᵀ inputs)] for one dimension."""
    for_weight = [
        [1 / 4, 0, 0], [-1 / 6, -1 / 6, -1 / 6], [-1 / 6, 1 / 6, -1 / 6],
        [1 / 24, 1 / 12, 1 / 6], [1 / 24, -1 / 12, 1 / 6], [0, 0, 1],
    ]  # fmt: skip
    for_inputs = [
        [4, 0, -5, 0, 1, 0], [0, -4, -4, 1, 1, 0], [0, 4, -4, -1, 1, 0],
        [0, -2, -1, 2, 1, 0], [0, 2, -1, -2, 1, 0], [0, 4, 0, -5, 0, 1],
    ]  # fmt: skip
    for_outputs = [[1, 1, 1, 1, 1, 0], [0, 1, -1, 2, -2, 0], [0, 1, 1, 4, 4, 0], [0, 1, -1, 8, -8, 1]]
    return torch.tensor(for_weight), torch.tensor(for_inputs).float(), torch.tensor(for_outputs).float()


def pair_matrices() -> tuple[Tensor, Tensor, Tensor]:
    """Return the same for a map of two: weight (3, 3), inputs (3, 2), outputs (2, 3), three products instead of four.

    With inputs a, b and taps p, q, r the outputs are qa + rb = q(a + b) + (r - q)b and pa + qb = q(a + b) + (p - q)a.
    """
    for_weight = [[0, 1, 0], [0, -1, 1], [1, -1, 0]]
    return tuple(torch.tensor(rows).float() for rows in (for_weight, [[1, 1], [0, 1], [1, 0]], [[1, 1, 0], [1, 0, 1]]))  # type: ignore[return-value]


@cache
def plane_matrices(size: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return the matrices for two dimensions: of a whole map of 2 or 4 with its padding, or of a patch of 6."""
    for_weight, for_inputs, for_outputs = pair_matrices() if size == 2 else winograd_matrices()
    if size == TILE:
        for_inputs = for_inputs[:, 1 : 1 + TILE]  # what is left of the columns is zero padding
    return tuple(torch.kron(matrix, matrix) for matrix in (for_weight, for_inputs, for_outputs))  # type: ignore[return-value]


def whole_map(inputs: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Return the 3×3 convolution, stride 1 and padding 1, of (N, C, S, S) with (out, C, 3, 3), where S is 2 or 4."""
    num_images, in_channels, size, _ = inputs.shape
    for_weight, for_inputs, for_outputs = plane_matrices(size)
    pixels = inputs.permute(2, 3, 0, 1).reshape(size * size, -1)
    taps = weight.permute(2, 3, 0, 1).reshape(9, -1)
    left = (for_inputs @ pixels).view(-1, num_images, in_channels)
    right = (for_weight @ taps).view(-1, len(weight), in_channels)
    products = torch.bmm(left, right.transpose(1, 2))  # (9 or 36, N, out)
    outputs = (for_outputs @ products.flatten(1)).view(size, size, num_images, -1)
    if bias is not None:
        outputs = outputs + bias
    return outputs.permute(2, 3, 0, 1).contiguous(memory_format=torch.channels_last)


def tiled(inputs: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Return the 3×3 convolution, stride 1 and padding 1, of (N, C, H, W) with (out, C, 3, 3)."""
    outputs: Tensor = TiledConvolution.apply(inputs, weight, bias)
    return outputs


class TiledConvolution(torch.autograd.Function):
    """Winograd's F(4×4, 3×3), whose gradient keeps the transformed inputs instead of computing them twice.

    Second derivatives are refused; `device.fast_conv=false` has them.
    """

    @staticmethod
    def forward(ctx: Any, inputs: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """Return the outputs (N, out, H, W)."""
        left = transform_patches(inputs)
        outputs = convolve_patches(left, weight.permute(2, 3, 0, 1), inputs.shape, bias)
        ctx.save_for_backward(left, weight)
        ctx.has_bias = bias is not None
        return outputs

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        """Return the gradients: for the inputs a convolution with the kernel turned round."""
        left, weight = ctx.saved_tensors
        out_channels, in_channels = weight.shape[:2]
        for_weight, _, for_outputs = plane_matrices(PATCH)
        grad_inputs = grad_weight = None
        if ctx.needs_input_grad[0]:
            turned = weight.flip(2, 3).permute(2, 3, 1, 0)
            grad_inputs = convolve_patches(transform_patches(grad), turned, grad.shape, None)
        if ctx.needs_input_grad[1]:
            right = (for_outputs.t() @ split_tiles(grad)).view(PATCH * PATCH, -1, out_channels)
            products = torch.bmm(right.transpose(1, 2), left).view(PATCH * PATCH, -1)
            taps = (for_weight.t() @ products).view(3, 3, out_channels, in_channels)
            grad_weight = taps.permute(2, 3, 0, 1)
        return grad_inputs, grad_weight, grad.sum((0, 2, 3)) if ctx.has_bias else None


def transform_patches(inputs: Tensor) -> Tensor:
    """Return Bᵀ x B of every overlapping 6×6 patch of (N, C, H, W), padded with zeros: (36, N * tiles, C)."""
    _, for_inputs, _ = plane_matrices(PATCH)
    bottom, right = (1 + -size % TILE for size in inputs.shape[2:])
    padded = F.pad(inputs.permute(0, 2, 3, 1), (0, 0, 1, right, 1, bottom))
    patches = padded.unfold(1, PATCH, TILE).unfold(2, PATCH, TILE)  # (N, H / 4, W / 4, C, 6, 6)
    pixels = patches.permute(4, 5, 0, 1, 2, 3).reshape(PATCH * PATCH, -1)
    return (for_inputs @ pixels).view(PATCH * PATCH, -1, inputs.shape[1])


def convolve_patches(left: Tensor, taps: Tensor, shape: torch.Size, bias: Tensor | None) -> Tensor:
    """Return outputs (N, out, H, W) from transformed patches and taps (3, 3, out, C); `shape` has N, H and W."""
    for_weight, _, for_outputs = plane_matrices(PATCH)
    out_channels, in_channels = taps.shape[2:]
    right = (for_weight @ taps.reshape(9, -1)).view(PATCH * PATCH, out_channels, in_channels)
    products = torch.bmm(left, right.transpose(1, 2)).view(PATCH * PATCH, -1)
    tiles = (for_outputs @ products).view(-1, out_channels)
    return join_tiles(tiles if bias is None else tiles.add_(bias), shape[0], shape[2], shape[3])


def split_tiles(outputs: Tensor) -> Tensor:
    """Return (16, N * tiles * C) from (N, C, H, W), with zeros where the last tiles reach beyond the map."""
    num_images, channels, height, width = outputs.shape
    pixels = outputs.permute(0, 2, 3, 1)
    if height % TILE or width % TILE:
        pixels = F.pad(pixels, (0, 0, 0, -width % TILE, 0, -height % TILE))
    rows, columns = -(-height // TILE), -(-width // TILE)
    grid = pixels.reshape(num_images, rows, TILE, columns, TILE, channels)
    return grid.permute(2, 4, 0, 1, 3, 5).reshape(TILE * TILE, -1)


def join_tiles(tiles: Tensor, num_images: int, height: int, width: int) -> Tensor:
    """Return (N, C, H, W) in channels_last memory from (16 * N * tiles, C)."""
    rows, columns = -(-height // TILE), -(-width // TILE)
    outputs = torch.empty((num_images, TILE * rows, TILE * columns, tiles.shape[-1]))
    grid = outputs.view(num_images, rows, TILE, columns, TILE, -1)
    grid.copy_(tiles.view(TILE, TILE, num_images, rows, columns, -1).permute(2, 3, 0, 4, 1, 5))
    return outputs[:, :height, :width].permute(0, 3, 1, 2).contiguous(memory_format=torch.channels_last)
