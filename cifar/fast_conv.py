"""Faster float32 convolutions on a CPU, for the small maps of CIFAR-10: `device.fast_conv=true|false`.

Two ways to turn a convolution into a few large matrix products, each for the shapes at which it pays, on activations in
channels_last memory. A layer keeps its parameters, so checkpoints don't change; sums are rounded in another order.

- 1×1: one product over the channels.
- 3×3: a bilinear algorithm, outputs = Aᵀ[(G w) ⊙ (Bᵀ x)], whose products ⊙ are matrix products over the channels. On
  tiles of 4×4 outputs it is Winograd's F(4×4, 3×3), with 36 products instead of 144 taps (Lavin & Gray,
  arXiv:1509.09308, section 4.3); on a whole 2×2 map it has 9 products instead of 36 taps.
"""

from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

MIN_MAP_CHANNELS = 64  # output channels from which one tile for the whole map pays
MIN_TILED_TAPS = 64 * 128  # input times output channels from which several tiles pay
MAX_TILED_SIZE = 16
MIN_GROUPED_TILES = 1000  # from which a grouped convolution is the faster batch of products
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
            return lambda x, weight, bias: pointwise(x, weight, bias, stride)
        if self.kernel_size != (3, 3) or self.padding != (1, 1) or self.stride != (1, 1) or height != width:
            return None
        if height in (2, 4) and self.out_channels >= MIN_MAP_CHANNELS:
            return bilinear
        if height <= MAX_TILED_SIZE and self.in_channels * self.out_channels >= MIN_TILED_TAPS:
            return bilinear
        return None


def speed_up(model: nn.Module) -> None:
    """Let every ordinary convolution of the model choose its form; parameters, hooks and keys stay what they are."""
    for module in model.modules():
        is_ordinary = type(module) is nn.Conv2d and module.groups == 1 and module.dilation == (1, 1)
        if is_ordinary and module.padding_mode == "zeros" and not isinstance(module.padding, str):
            module.__class__ = FastConv2d


def pointwise(inputs: Tensor, weight: Tensor, bias: Tensor | None, stride: tuple[int, ...] = (1, 1)) -> Tensor:
    """Return the 1×1 convolution of (N, C, H, W) with (out, C, 1, 1)."""
    pixels = inputs.permute(0, 2, 3, 1)[:, :: stride[0], :: stride[1]]  # so that the gradient is channels_last too
    num_images, height, width, channels = pixels.shape
    rows = PointwiseConvolution.apply(pixels.reshape(num_images, height * width, channels), weight.flatten(1), bias)
    outputs: Tensor = rows.view(num_images, height, width, -1).permute(0, 3, 1, 2)
    return outputs


class PointwiseConvolution(torch.autograd.Function):
    """One matrix product over the channels, with its gradients. Second derivatives are refused."""

    @staticmethod
    def forward(ctx: Any, pixels: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """Return (N, H * W, out) of pixels (N, H * W, C) and weight (out, C)."""
        ctx.save_for_backward(pixels, weight)
        ctx.has_bias = bias is not None
        return convolve_rows(pixels, weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        """Return the gradients for the pixels, the weight and the bias."""
        pixels, weight = ctx.saved_tensors
        grad = grad.contiguous()
        grad_pixels = gradient_for_rows(grad, pixels, weight) if ctx.needs_input_grad[0] else None
        grad_weight = grad.flatten(0, 1).t() @ pixels.flatten(0, 1) if ctx.needs_input_grad[1] else None
        return grad_pixels, grad_weight, grad.sum((0, 1)) if ctx.has_bias else None


def convolve_rows(rows: Tensor, weight: Tensor, bias: Tensor | None = None, groups: int = 1) -> Tensor:
    """Return the products (N, M, groups * out) of rows (N, M, groups * C) with weight (groups * out, C) in each group.

    As the 1×1 convolution of one map of N × M pixels they are computed by kernels that know AVX-512 on processors of
    every make, which float32 matrix products in torch do not.
    """
    return as_rows(F.conv2d(as_map(rows), weight[:, :, None, None], bias, groups=groups))


def gradient_for_rows(grad: Tensor, rows: Tensor, weight: Tensor) -> Tensor:
    """Return the gradient for rows (N, M, C) from that of their products with weight (out, C)."""
    kernel = weight[:, :, None, None]
    options = ([1, 1], [0, 0], [1, 1], False, [0, 0], 1, [True, False, False])  # stride … groups, and what is asked for
    return as_rows(torch.ops.aten.convolution_backward(as_map(grad), as_map(rows), kernel, None, *options)[0])


def as_map(rows: Tensor) -> Tensor:
    """Return (N, M, C) as one map (1, C, N, M) in channels_last memory."""
    return rows.view(1, *rows.shape).permute(0, 3, 1, 2)


def as_rows(pixels: Tensor) -> Tensor:
    """Return one map (1, C, N, M) as (N, M, C)."""
    return pixels[0].permute(1, 2, 0)


class Matrices(NamedTuple):
    """A bilinear algorithm with P products: outputs = for_outputs [(for_weight taps) ⊙ (for_inputs pixels)]."""

    for_weight: Tensor  # G, (P, taps)
    for_inputs: Tensor  # Bᵀ, (P, pixels)
    for_outputs: Tensor  # Aᵀ, (outputs, P)


def winograd_matrices() -> Matrices:
    """Return those for one dimension of a tile: 4 outputs from 6 inputs and 3 taps by 6 products."""
    for_weight = [
        [1 / 4, 0, 0], [-1 / 6, -1 / 6, -1 / 6], [-1 / 6, 1 / 6, -1 / 6],
        [1 / 24, 1 / 12, 1 / 6], [1 / 24, -1 / 12, 1 / 6], [0, 0, 1],
    ]  # fmt: skip
    for_inputs = [
        [4, 0, -5, 0, 1, 0], [0, -4, -4, 1, 1, 0], [0, 4, -4, -1, 1, 0],
        [0, -2, -1, 2, 1, 0], [0, 2, -1, -2, 1, 0], [0, 4, 0, -5, 0, 1],
    ]  # fmt: skip
    for_outputs = [[1, 1, 1, 1, 1, 0], [0, 1, -1, 2, -2, 0], [0, 1, 1, 4, 4, 0], [0, 1, -1, 8, -8, 1]]
    return Matrices(*(torch.tensor(rows).float() for rows in (for_weight, for_inputs, for_outputs)))


def pair_matrices() -> Matrices:
    """Return those for one dimension of a map of two, with its padding: three products instead of four.

    With inputs a, b and taps p, q, r the outputs are qa + rb = q(a + b) + (r - q)b and pa + qb = q(a + b) + (p - q)a.
    """
    for_weight = [[0, 1, 0], [0, -1, 1], [1, -1, 0]]
    return Matrices(
        *(torch.tensor(rows).float() for rows in (for_weight, [[1, 1], [0, 1], [1, 0]], [[1, 1, 0], [1, 0, 1]]))
    )


@cache
def plane_matrices(size: int) -> Matrices:
    """Return those for two dimensions: of a whole map of 2 or 4 with its padding, or of a patch of 6."""
    matrices = pair_matrices() if size == 2 else winograd_matrices()
    if size == TILE:  # what is left of the inputs is zero padding
        matrices = matrices._replace(for_inputs=matrices.for_inputs[:, 1 : 1 + TILE])
    return Matrices(*(torch.kron(matrix, matrix) for matrix in matrices))


def bilinear(inputs: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Return the 3×3 convolution, stride 1 and padding 1, of (N, C, S, S) with (out, C, 3, 3)."""
    outputs: Tensor = BilinearConvolution.apply(inputs, weight, bias)
    return outputs


class BilinearConvolution(torch.autograd.Function):
    """The bilinear algorithm on T tiles: the whole map of every image if it has 2×2 or 4×4 pixels, else 4×4 outputs.

    Rows are a tile's pixels or products and columns the channels, so that what is computed together lies together.
    The gradients are those of the algorithm, its matrices transposed. Second derivatives are refused;
    `device.fast_conv=false` has them.
    """

    @staticmethod
    def forward(ctx: Any, inputs: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """Return the outputs (N, out, S, S)."""
        size = inputs.shape[2]
        matrices = plane_matrices(size if is_one_tile(size) else PATCH)
        left = transform(matrices.for_inputs, cut(inputs))  # (T, P, C)
        taps = weight.permute(0, 2, 3, 1).reshape(len(weight), -1, weight.shape[1])  # (out, 9, C)
        right = transform(matrices.for_weight, taps)  # (out, P, C)
        tiles = transform(matrices.for_outputs, multiply(left, right, len(inputs)))
        ctx.save_for_backward(left, right)
        ctx.matrices, ctx.size, ctx.has_bias = matrices, size, bias is not None
        return join(tiles if bias is None else tiles.add_(bias), size)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        """Return the gradients for the inputs, the weight and the bias."""
        left, right = ctx.saved_tensors
        for_weight, for_inputs, for_outputs = ctx.matrices
        grad_products = transform(for_outputs.t(), split(grad))  # (T, P, out)
        grad_inputs = grad_weight = None
        if ctx.needs_input_grad[0]:
            grad_left = multiply(grad_products, right.transpose(0, 2), len(grad))
            grad_inputs = add_up(transform(for_inputs.t(), grad_left), ctx.size)
        if ctx.needs_input_grad[1]:
            grad_right = torch.bmm(grad_products.permute(1, 2, 0), left.transpose(0, 1))  # (P, out, C)
            grad_taps = transform(for_weight.t(), grad_right.transpose(0, 1))
            grad_weight = grad_taps.view(len(right), 3, 3, -1).permute(0, 3, 1, 2)
        return grad_inputs, grad_weight, grad.sum((0, 2, 3)) if ctx.has_bias else None


def transform(matrix: Tensor, tiles: Tensor) -> Tensor:
    """Return the product (T, R, C) of a matrix (R, P) with every tile of (T, P, C)."""
    return torch.bmm(matrix.expand(len(tiles), -1, -1), tiles)


def multiply(left: Tensor, right: Tensor, num_images: int) -> Tensor:
    """Return P matrix products (T, P, out) of (T, P, C) with (out, P, C)."""
    num_tiles, num_products, channels = left.shape
    if num_tiles < MIN_GROUPED_TILES:
        products = left.new_empty((num_tiles, num_products, len(right)))
        torch.bmm(left.transpose(0, 1), right.permute(1, 2, 0), out=products.transpose(0, 1))
        return products
    rows = left.view(num_images, -1, num_products * channels)
    products = convolve_rows(rows, right.transpose(0, 1).reshape(-1, channels), groups=num_products)
    return products.reshape(num_tiles, num_products, -1)


def is_one_tile(size: int) -> bool:
    """Return whether a map is one tile; then cutting it, and joining, is only another view of channels_last memory."""
    return size in (2, TILE)


def cut(inputs: Tensor) -> Tensor:
    """Return the pixels (T, pixels, C) on which every tile of (N, C, S, S) depends: overlapping 6×6 patches."""
    num_images, channels, size, _ = inputs.shape
    pixels = inputs.permute(0, 2, 3, 1)
    if is_one_tile(size):
        return pixels.reshape(num_images, -1, channels)
    end = 1 + -size % TILE  # the last tiles may reach beyond the map
    patches = F.pad(pixels, (0, 0, 1, end, 1, end)).unfold(1, PATCH, TILE).unfold(2, PATCH, TILE)
    return patches.permute(0, 1, 2, 4, 5, 3).reshape(-1, PATCH * PATCH, channels)


def add_up(patches: Tensor, size: int) -> Tensor:
    """Return (N, C, S, S), in which the patches (T, pixels, C) are added where they overlap: the transpose of `cut`."""
    channels = patches.shape[2]
    if is_one_tile(size):
        return join(patches, size)
    tiles = -(-size // TILE)
    patches = patches.view(-1, tiles, tiles, PATCH, PATCH, channels).transpose(2, 3)  # (N, rows, 6, columns, 6, C)
    padded = patches.new_zeros((len(patches), tiles + 1, TILE, tiles + 1, TILE, channels))
    inner, outer = slice(TILE), slice(TILE, PATCH)  # a patch reaches two pixels into the next tile
    padded[:, :-1, :, :-1] = patches[:, :, inner, :, inner]
    padded[:, 1:, : PATCH - TILE, :-1] += patches[:, :, outer, :, inner]
    padded[:, :-1, :, 1:, : PATCH - TILE] += patches[:, :, inner, :, outer]
    padded[:, 1:, : PATCH - TILE, 1:, : PATCH - TILE] += patches[:, :, outer, :, outer]
    pixels = padded.view(len(patches), TILE * (tiles + 1), TILE * (tiles + 1), channels)
    return pixels[:, 1 : 1 + size, 1 : 1 + size].contiguous().permute(0, 3, 1, 2)


def join(tiles: Tensor, size: int) -> Tensor:
    """Return (N, out, S, S) in channels_last memory from the tiles' outputs (T, outputs, out)."""
    channels = tiles.shape[2]
    if is_one_tile(size):
        return tiles.view(-1, size, size, channels).permute(0, 3, 1, 2)
    rows = -(-size // TILE)
    grid = tiles.view(-1, rows, rows, TILE, TILE, channels).transpose(2, 3)
    pixels = grid.reshape(-1, TILE * rows, TILE * rows, channels)
    return pixels[:, :size, :size].contiguous().permute(0, 3, 1, 2)


def split(outputs: Tensor) -> Tensor:
    """Return the tiles' (T, outputs, out) of (N, out, S, S), with zeros beyond the map: the transpose of `join`."""
    num_images, channels, size, _ = outputs.shape
    pixels = outputs.permute(0, 2, 3, 1)
    if is_one_tile(size):
        return pixels.reshape(num_images, -1, channels)
    pixels = F.pad(pixels, (0, 0, 0, -size % TILE, 0, -size % TILE))
    rows = -(-size // TILE)
    grid = pixels.reshape(num_images, rows, TILE, rows, TILE, channels)
    return grid.transpose(2, 3).reshape(-1, TILE * TILE, channels)
