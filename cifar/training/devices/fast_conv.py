"""Faster convolutions on a CPU, for the small maps of CIFAR-10: `device.fast_conv=true|false`.

Two ways to turn a convolution into a few large matrix products, each for the shapes at which it pays, on activations in
channels_last memory. A layer keeps its parameters, so checkpoints don't change; sums are rounded in another order.

- 1×1: one product over the channels.
- 3×3: a bilinear algorithm, outputs = Aᵀ[(G w) ⊙ (Bᵀ x)], whose products ⊙ are matrix products over the channels. On
  tiles of 4×4 outputs it is Winograd's F(4×4, 3×3), with 36 products instead of 144 taps (Lavin & Gray,
  arXiv:1509.09308, section 4.3); on a whole 2×2 map it has 9 products instead of 36 taps.

In bf16 there are two of them: 1×1 convolutions as matrix products of torch's, which beat its convolutions on small
maps, and the form for 2×2 maps, whose sums of two keep twice bf16's own rounding. Larger tiles would lose a digit.
"""

from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cifar.base.errors import UserError

MIN_MAP_CHANNELS = 64  # output channels from which one tile for the whole map pays
MIN_TILED_CHANNELS = 64 * 128  # input times output channels from which tiles pay
MAX_TILED_SIZE = 16
MIN_GROUPED_TILES = 1000  # from which a grouped convolution is the faster batch of products
PAIRED_SIZE = 2  # of the map that is convolved pair by pair
TILE = 4  # outputs of a tile, in each direction
PATCH = TILE + 2  # inputs that they depend on

Form = Callable[[Tensor, Tensor, Tensor | None], Tensor]


class FastConv2d(nn.Conv2d):
    """What `speed_up` makes of an ordinary convolution: it takes the fastest known form for the shape at hand."""

    def forward(self, inputs: Tensor) -> Tensor:  # (N, C, H, W) -> (N, out, H', W')
        """Return the convolution in float32, or in bf16 under autocast, on a CPU; anything else is torch's affair."""
        dtype = arithmetic(inputs, self.weight)
        form = None if dtype is None else self.choose_form(inputs, dtype)
        if form is None:
            return super().forward(inputs)
        with torch.autocast("cpu", enabled=False):
            return form(inputs.to(dtype), self.weight.to(dtype), None if self.bias is None else self.bias.to(dtype))

    def choose_form(self, inputs: Tensor, dtype: torch.dtype = torch.float32) -> Form | None:
        """Return the form for inputs of this shape, None for torch's own."""
        if inputs.dim() != 4 or inputs.numel() == 0:
            return None
        if self.kernel_size == (1, 1) and self.padding == (0, 0):
            return lambda x, weight, bias: pointwise(x, weight, bias, self.stride)
        height, width = inputs.shape[2:]
        if self.kernel_size != (3, 3) or self.padding != (1, 1) or self.stride != (1, 1) or height != width:
            return None
        return bilinear if self.pays_in_tiles(height, dtype) else None

    def pays_in_tiles(self, size: int, dtype: torch.dtype) -> bool:
        """Return whether tiles are the faster way for maps of this size, and exact enough."""
        is_wide = self.in_channels * self.out_channels >= MIN_TILED_CHANNELS
        if is_one_tile(size):
            is_exact = dtype == torch.float32 or size == PAIRED_SIZE
            return is_exact and (is_wide or self.out_channels >= MIN_MAP_CHANNELS)
        return dtype == torch.float32 and is_wide and 1 < size <= MAX_TILED_SIZE


def arithmetic(inputs: Tensor, weight: Tensor) -> torch.dtype | None:
    """Return in which of the two types that there are forms for torch would convolve, None if it is another."""
    if inputs.device.type != "cpu" or weight.dtype != torch.float32:
        return None
    if torch.is_autocast_enabled("cpu"):
        return torch.bfloat16 if torch.get_autocast_dtype("cpu") == torch.bfloat16 else None
    return torch.float32 if inputs.dtype == torch.float32 else None


def speed_up(model: nn.Module) -> None:
    """Let every ordinary convolution of the model choose its form; parameters, hooks and keys stay what they are."""
    for module in model.modules():
        is_ordinary = type(module) is nn.Conv2d and module.groups == 1 and module.dilation == (1, 1)
        if is_ordinary and module.padding_mode == "zeros" and not isinstance(module.padding, str):
            module.__class__ = FastConv2d


def pointwise(inputs: Tensor, weight: Tensor, bias: Tensor | None, stride: tuple[int, ...]) -> Tensor:
    """Return the 1×1 convolution of (N, C, H, W) with (out, C, 1, 1)."""
    pixels = inputs.permute(0, 2, 3, 1)[:, :: stride[0], :: stride[1]]  # so that the gradient is channels_last too
    num_images, height, width, channels = pixels.shape
    rows = PointwiseConvolution.apply(pixels.reshape(num_images, height * width, channels), weight.flatten(1), bias)
    outputs: Tensor = rows.view(num_images, height, width, -1).permute(0, 3, 1, 2)
    return outputs


class PointwiseConvolution(torch.autograd.Function):
    """A convolution of single pixels, but for the gradient of the weight, which is faster as a matrix product."""

    @staticmethod
    def forward(ctx: Any, pixels: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """Return (N, H * W, out) of pixels (N, H * W, C) and weight (out, C)."""
        ctx.save_for_backward(pixels, weight)
        return convolve_rows(pixels, weight, bias).detach()  # no view, so that it may be changed in place

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        """Return the gradients for the pixels, the weight and the bias; raise `UserError` if they are to have some."""
        pixels, weight = ctx.saved_tensors
        needs_pixels, needs_weight, needs_bias = ctx.needs_input_grad
        grad = grad.contiguous()
        with first_derivatives():
            return (
                gradient_for_rows(grad, pixels, weight) if needs_pixels else None,
                grad.flatten(0, 1).t() @ pixels.flatten(0, 1) if needs_weight else None,
                grad.sum((0, 1)) if needs_bias else None,
            )


def first_derivatives() -> torch.autocast:
    """Return the context of a backward pass: float32 as in the forward pass.

    Raises `UserError` if the gradients are to have gradients themselves.
    """
    if torch.is_grad_enabled():
        raise UserError("The faster convolutions have no second derivatives; device.fast_conv=false has them.")
    return torch.autocast("cpu", enabled=False)


def convolve_rows(rows: Tensor, weight: Tensor, bias: Tensor | None = None, groups: int = 1) -> Tensor:
    """Return the products (N, M, groups * out) of rows (N, M, groups * C) with weight (groups * out, C) in each group.

    In float32 they are computed as the 1×1 convolution of one map of N × M pixels, for which torch has a faster library
    than for matrix products.
    """
    if rows.dtype == torch.bfloat16:
        return F.linear(rows, weight, bias)
    return as_rows(F.conv2d(as_map(rows), weight[:, :, None, None], bias, groups=groups))


def gradient_for_rows(grad: Tensor, rows: Tensor, weight: Tensor) -> Tensor:
    """Return the gradient for rows (N, M, C) from that of their products with weight (out, C)."""
    if rows.dtype == torch.bfloat16:
        return grad @ weight
    gradients = torch.ops.aten.convolution_backward(
        as_map(grad), as_map(rows), weight[:, :, None, None], bias_sizes=None, stride=[1, 1], padding=[0, 0],
        dilation=[1, 1], transposed=False, output_padding=[0, 0], groups=1, output_mask=[True, False, False],
    )  # fmt: skip
    return as_rows(gradients[0])


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


def matrices(for_weight: list[list[float]], for_inputs: list[list[float]], for_outputs: list[list[float]]) -> Matrices:
    """Return an algorithm from its rows."""
    rows = (for_weight, for_inputs, for_outputs)
    return Matrices(*(torch.tensor(matrix, dtype=torch.float32, device="cpu") for matrix in rows))


def in_two_dimensions(algorithm: Matrices) -> Matrices:
    """Return the algorithm for a plane from that for a line."""
    return Matrices(*(torch.kron(matrix, matrix) for matrix in algorithm))


# A line of a tile: 4 outputs from 6 inputs and 3 taps by 6 products.
WINOGRAD = matrices(
    [
        [1 / 4, 0, 0], [-1 / 6, -1 / 6, -1 / 6], [-1 / 6, 1 / 6, -1 / 6],
        [1 / 24, 1 / 12, 1 / 6], [1 / 24, -1 / 12, 1 / 6], [0, 0, 1],
    ],
    [
        [4, 0, -5, 0, 1, 0], [0, -4, -4, 1, 1, 0], [0, 4, -4, -1, 1, 0],
        [0, -2, -1, 2, 1, 0], [0, 2, -1, -2, 1, 0], [0, 4, 0, -5, 0, 1],
    ],
    [[1, 1, 1, 1, 1, 0], [0, 1, -1, 2, -2, 0], [0, 1, 1, 4, 4, 0], [0, 1, -1, 8, -8, 1]],
)  # fmt: skip

# A line of a map of two, with its padding: 3 products instead of 4. With inputs a, b and taps p, q, r the outputs are
# qa + rb = q(a + b) + (r - q)b and pa + qb = q(a + b) + (p - q)a.
PAIR = matrices([[0, 1, 0], [0, -1, 1], [1, -1, 0]], [[1, 1], [0, 1], [1, 0]], [[1, 1, 0], [1, 0, 1]])

# By the pixels on each side of what a tile depends on; on a map of four two of the six inputs are padding.
ALGORITHMS = {
    PAIRED_SIZE: in_two_dimensions(PAIR),
    TILE: in_two_dimensions(WINOGRAD._replace(for_inputs=WINOGRAD.for_inputs[:, 1 : 1 + TILE])),
    PATCH: in_two_dimensions(WINOGRAD),
}


@lru_cache
def algorithm_for(size: int, dtype: torch.dtype) -> Matrices:
    """Return the algorithm for tiles that depend on so many pixels on each side, as numbers of this type."""
    return Matrices(*(matrix.to(dtype) for matrix in ALGORITHMS[size]))


def bilinear(inputs: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Return the 3×3 convolution, stride 1 and padding 1, of (N, C, S, S) with (out, C, 3, 3)."""
    outputs: Tensor = BilinearConvolution.apply(inputs, weight, bias)
    return outputs


class BilinearConvolution(torch.autograd.Function):
    """The bilinear algorithm on T tiles: the whole map of every image if it has 2×2 or 4×4 pixels, else 4×4 outputs.

    Rows are a tile's pixels or products and columns the channels, so that what is computed together lies together.
    The gradients are those of the algorithm, its matrices transposed. What it keeps for them has 2.25 times the size of
    the inputs, or a little more where 4 does not divide the map. A value that is not finite spreads over its tile.
    """

    @staticmethod
    def forward(ctx: Any, inputs: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """Return the outputs (N, out, S, S)."""
        size = inputs.shape[2]
        algorithm = algorithm_for(size if is_one_tile(size) else PATCH, inputs.dtype)
        left = transform(algorithm.for_inputs, cut_inputs(inputs))  # (T, P, C)
        taps = weight.permute(0, 2, 3, 1).reshape(len(weight), -1, weight.shape[1])  # (out, 9, C)
        right = transform(algorithm.for_weight, taps)  # (out, P, C)
        tiles = transform(algorithm.for_outputs, multiply(left, right, len(inputs)))
        needs_inputs, needs_weight, _ = ctx.needs_input_grad
        ctx.save_for_backward(left if needs_weight else None, right if needs_inputs else None)
        ctx.algorithm, ctx.size = algorithm, size
        outputs = join_outputs(tiles if bias is None else tiles.add_(bias), size)
        return outputs.detach()  # no view, so that it may be changed in place

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        """Return the gradients for inputs, weight and bias; raise `UserError` if they are to have some themselves."""
        left, right = ctx.saved_tensors
        for_weight, for_inputs, for_outputs = ctx.algorithm
        grad_inputs = grad_weight = None
        with first_derivatives():
            grad_products = transform(for_outputs.t(), split_outputs(grad))  # (T, P, out)
            if right is not None:
                grad_left = multiply(grad_products, right.transpose(0, 2), len(grad))
                grad_inputs = add_up_inputs(transform(for_inputs.t(), grad_left), ctx.size)
            if left is not None:
                grad_right = torch.bmm(grad_products.permute(1, 2, 0), left.transpose(0, 1))  # (P, out, C)
                grad_taps = transform(for_weight.t(), grad_right.transpose(0, 1))
                grad_weight = grad_taps.view(len(grad_taps), 3, 3, -1).permute(0, 3, 1, 2)
        return grad_inputs, grad_weight, grad.sum((0, 2, 3)) if ctx.needs_input_grad[2] else None


def transform(matrix: Tensor, tiles: Tensor) -> Tensor:
    """Return the product (T, R, C) of a matrix (R, P) with every tile of (T, P, C)."""
    return torch.bmm(matrix.expand(len(tiles), -1, -1), tiles)


def multiply(left: Tensor, right: Tensor, num_images: int) -> Tensor:
    """Return P matrix products (T, P, out) of (T, P, C) with (out, P, C); T is a multiple of `num_images`."""
    num_tiles, num_products, channels = left.shape
    if num_tiles < MIN_GROUPED_TILES or left.dtype == torch.bfloat16:
        products = left.new_empty((num_tiles, num_products, len(right)))
        torch.bmm(left.transpose(0, 1), right.permute(1, 2, 0), out=products.transpose(0, 1))
        return products
    rows = left.view(num_images, -1, num_products * channels)  # a map with two sides, as channels_last memory needs
    products = convolve_rows(rows, right.transpose(0, 1).reshape(-1, channels), groups=num_products)
    return products.reshape(num_tiles, num_products, -1)


def is_one_tile(size: int) -> bool:
    """Return whether a map is one tile; then cutting it, and joining, is only another view of channels_last memory."""
    return size in (PAIRED_SIZE, TILE)


def cut_inputs(inputs: Tensor) -> Tensor:
    """Return the pixels (T, pixels, C) on which every tile of (N, C, S, S) depends: overlapping 6×6 patches."""
    num_images, channels, size, _ = inputs.shape
    pixels = inputs.permute(0, 2, 3, 1)
    if is_one_tile(size):
        return pixels.reshape(num_images, -1, channels)
    end = 1 + -size % TILE  # the last tiles may reach beyond the map
    patches = F.pad(pixels, (0, 0, 1, end, 1, end)).unfold(1, PATCH, TILE).unfold(2, PATCH, TILE)
    return patches.permute(0, 1, 2, 4, 5, 3).reshape(-1, PATCH * PATCH, channels)


def add_up_inputs(patches: Tensor, size: int) -> Tensor:
    """Return (N, C, S, S), the sum of the patches (T, pixels, C) where they overlap: the transpose of `cut_inputs`."""
    channels = patches.shape[2]
    if is_one_tile(size):
        return join_outputs(patches, size)
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


def join_outputs(tiles: Tensor, size: int) -> Tensor:
    """Return (N, out, S, S) in channels_last memory from the tiles' outputs (T, outputs, out)."""
    channels = tiles.shape[2]
    if is_one_tile(size):
        return tiles.view(-1, size, size, channels).permute(0, 3, 1, 2)
    rows = -(-size // TILE)
    grid = tiles.view(-1, rows, rows, TILE, TILE, channels).transpose(2, 3)
    pixels = grid.reshape(-1, TILE * rows, TILE * rows, channels)
    return pixels[:, :size, :size].contiguous().permute(0, 3, 1, 2)


def split_outputs(outputs: Tensor) -> Tensor:
    """Return the tiles (T, outputs, out) of (N, out, S, S), zero beyond the map: the transpose of `join_outputs`."""
    num_images, channels, size, _ = outputs.shape
    pixels = outputs.permute(0, 2, 3, 1)
    if is_one_tile(size):
        return pixels.reshape(num_images, -1, channels)
    pixels = F.pad(pixels, (0, 0, 0, -size % TILE, 0, -size % TILE))
    rows = -(-size // TILE)
    grid = pixels.reshape(num_images, rows, TILE, rows, TILE, channels)
    return grid.transpose(2, 3).reshape(-1, TILE * TILE, channels)
