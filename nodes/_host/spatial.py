"""ComfyUI's layers between the motion modules, with the same weights and arithmetic and fewer passes over memory.

Only where nothing else needs ComfyUI's own: no attention patches, no hooks, no replaced forward, not under torch.compile, which joins operations by
itself. Everywhere else, for every layer that is built in another way, and where ComfyUI's forward is faster, it runs.
"""

import contextlib
import functools
import itertools
import sys
from collections.abc import Callable, Iterator

import comfy.ops
import torch
from comfy.cli_args import args
from comfy.ldm.modules import attention
from comfy.ldm.modules.attention import GEGLU, BasicTransformerBlock, FeedForward, SpatialTransformer
from comfy.ldm.modules.diffusionmodules.openaimodel import ResBlock, Upsample
from torch import Tensor

from ...motion_modules import kernels
from ...motion_modules.layers import few_pixels
from .operations import at_hand

ATTENTION_PATCHES = frozenset(("attn1_patch", "attn1_output_patch", "middle_patch", "attn2_patch", "attn2_output_patch"))
OVERRIDE = "optimized_attention_override"
"""Where ComfyUI asks which attention to use."""
FOLDING_PIXELS = {"cuda": 2048, "cpu": 256}
"""From so many pixels of all frames on, folding an upsampling's weights costs less than it saves (measured on an H200 and on a CPU)."""


def with_fast_attention(options: dict, device: torch.device) -> dict:
    """options for a call on device, with torch's attention where ComfyUI takes its sub-quadratic one unasked: on CPUs, where that takes longer."""
    unasked = attention.optimized_attention is attention.attention_sub_quad and not args.use_quad_cross_attention
    return {OVERRIDE: _torchs_attention} | options if unasked and device.type == "cpu" and _plain_run() else options


def _torchs_attention(chosen: Callable, *arguments: object, **options: object) -> Tensor:
    return attention.attention_pytorch(*arguments, **options)


def spatial_transformer(layer: SpatialTransformer, x: Tensor, context: Tensor | None, options: dict) -> Tensor:
    """What layer(x, context, options) gives. x: (n, c, h, w)."""
    if few_pixels(x, x.shape[2] * x.shape[3]) or not _free(options) or not isinstance(context, Tensor) or not _is_stock(layer):
        return layer(x, context, options)
    options["activations_shape"] = list(x.shape)
    h = _group_norm(layer.norm, x).flatten(2)
    with _weights(layer.proj_in, h) as (weight, bias):
        tokens = torch.baddbmm(bias, h.transpose(1, 2), weight.flatten(1).t().expand(len(h), -1, -1))  # n (h w) c
    for index, block in enumerate(layer.transformer_blocks):
        options["block_index"] = index
        tokens = tokens + block.attn1(_norm(block.norm1, tokens), context=None, value=None, transformer_options=options)
        tokens = tokens + block.attn2(_norm(block.norm2, tokens), context=context, value=None, transformer_options=options)
        gated, _, project = block.ff.net  # the second is dropout, which does nothing here
        tokens = tokens + project(kernels.geglu(gated.proj(_norm(block.norm3, tokens))))
    with _weights(layer.proj_out, tokens) as (weight, bias):
        h = torch.baddbmm(bias[:, None], weight.flatten(1).expand(len(tokens), -1, -1), tokens.transpose(1, 2))  # n c (h w)
    return h.view_as(x) + x


def resblock(layer: ResBlock, x: Tensor, emb: Tensor) -> Tensor:
    """What layer(x, emb) gives. x: (n, c, h, w); emb: (n, e). Where there are no kernels for x, the layer's own forward has as many passes."""
    if not kernels.fast(x) or not _is_stock_resblock(layer):
        return layer(x, emb)
    return resblock_by_kernels(layer, x, emb)


def resblock_by_kernels(layer: ResBlock, x: Tensor, emb: Tensor) -> Tensor:
    """`resblock` of a layer as it is in SD1.5: norm, shift and SiLU in one pass."""
    norm, _, conv = layer.in_layers
    h = conv(_group_norm(norm, x, silu=True))
    norm, _, _, conv = layer.out_layers
    return layer.skip_connection(x) + conv(_group_norm(norm, h, shift=layer.emb_layers(emb).type(h.dtype), silu=True))


def _group_norm(layer: torch.nn.GroupNorm, x: Tensor, shift: Tensor | None = None, silu: bool = False) -> Tensor:
    with _weights(layer, x) as (weight, bias):
        return kernels.group_norm(x, layer.num_groups, weight, bias, layer.eps, shift, silu)


def _norm(layer: torch.nn.LayerNorm, tokens: Tensor) -> Tensor:
    if not _is_core(layer, "LayerNorm") or layer.weight is None:
        return layer(tokens)
    with _weights(layer, tokens) as (weight, bias):
        return kernels.norm(tokens, weight, bias, layer.eps)


def upsample(layer: Upsample, x: Tensor, output_shape: torch.Size | None) -> Tensor:
    """What layer(x, output_shape) gives. x: (n, c, h, w).

    In a picture of which every pixel stands four times, a 3x3 kernel covers 2x2 different ones: 4 products in place of 9, with sums of its weights.
    """
    n, _, height, width = x.shape
    doubled = output_shape is None or tuple(output_shape[2:]) == (2 * height, 2 * width)
    fold = _FOLDED.get(x.device.type) if torch.version.hip is None else None
    if not _plain_run() or fold is None or not doubled or n * height * width < FOLDING_PIXELS[x.device.type] or not _is_usual(layer):
        return layer(x, output_shape=output_shape)
    with _weights(layer.conv, x) as (weight, bias):
        return fold(x, weight, bias)


def transposed(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """A 3x3 convolution of x with every pixel four times, as one transposed convolution. x: (n, c, h, w). Returns (n, d, 2h, 2w)."""
    kernel = (weight.flatten(2) @ _sums(_TRANSPOSED, weight.dtype, weight.device)).unflatten(2, (4, 4))
    return torch.nn.functional.conv_transpose2d(x, kernel.transpose(0, 1), bias, stride=2, padding=1)


def four(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """The same as four convolutions, one for every second row and column of the result."""
    n, _, height, width = x.shape
    padded = torch.nn.functional.pad(x, (1, 1, 1, 1))
    result = x.new_empty(n, len(weight), height, 2, width, 2)
    for i, j in itertools.product((0, 1), (0, 1)):
        kernel = (weight.flatten(2) @ _sums((_ROWS[i], _ROWS[j]), weight.dtype, weight.device)).unflatten(2, (2, 2))
        result[:, :, :, i, :, j] = torch.nn.functional.conv2d(padded[:, :, i : i + height + 1, j : j + width + 1], kernel, bias)
    return result.view(n, len(weight), 2 * height, 2 * width)


# which of a side's three weights each of the others is the sum of
_ROWS = ((1, 0), (0, 1), (0, 1)), ((1, 0), (1, 0), (0, 1))
_TRANSPOSED = (((0, 0, 1, 1), (0, 1, 1, 0), (1, 1, 0, 0)),) * 2
_FOLDED = {"cuda": transposed, "cpu": four}  # cuDNN is fastest with the first, oneDNN with the second


@functools.cache
def _sums(sides: tuple, dtype: torch.dtype, device: torch.device) -> Tensor:
    """(9, k): a 3x3 kernel's weights to those of a kernel whose two sides sum up as given."""
    rows, columns = (torch.tensor(side, dtype=dtype) for side in sides)
    return torch.kron(rows, columns).to(device)


@contextlib.contextmanager
def _weights(layer: torch.nn.Module, like: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Weight and bias as the layer's own forward would have them: cast, moved and patched."""
    weights = at_hand(layer, like)
    if weights is not None:
        yield weights
        return
    weight, bias, stream = comfy.ops.cast_bias_weight(layer, like, offloadable=True)
    try:
        yield weight, bias
    finally:
        comfy.ops.uncast_bias_weight(layer, weight, bias, stream)


def _plain_run() -> bool:
    """Whether nobody looks on: no compiler, and no training."""
    return not torch.compiler.is_compiling() and not torch.is_grad_enabled()


def _free(options: dict) -> bool:
    return _plain_run() and not ATTENTION_PATCHES & options.get("patches", {}).keys() and not options.get("patches_replace")


REPLACEABLE = frozenset(("forward", "_forward", "_conv_forward", "forward_comfy_cast_weights"))
"""What packs replace on a layer: LoRAs in bypass mode forward, seamless tiling _conv_forward."""


def _bare(module: torch.nn.Module) -> bool:
    """Whether nobody has hung something on it."""
    return not REPLACEABLE & vars(module).keys() and not module._forward_hooks and not module._forward_pre_hooks


@functools.cache
def _is_genuine(function: Callable) -> bool:
    """Whether a method was written in the file of its class's module, and not put there by somebody else, wrapped or not."""
    code = getattr(function, "__code__", None)
    return code is not None and code.co_filename == getattr(sys.modules.get(function.__module__), "__file__", None)


def _untouched(module: torch.nn.Module, kind: type) -> bool:
    """Whether it is of this very class, and nobody has hung something on it or on the class."""
    return type(module) is kind and _bare(module) and all(_is_genuine(getattr(kind, name)) for name in REPLACEABLE if hasattr(kind, name))


def _is_core(module: torch.nn.Module, name: str) -> bool:
    """Whether it is core's own layer of this name, whose weights are what they seem; packs with formats of their own derive from it."""
    return any(_untouched(module, getattr(operations, name)) for operations in (comfy.ops.disable_weight_init, comfy.ops.manual_cast))


def _is_stock(layer: SpatialTransformer) -> bool:
    projections = (layer.proj_in, layer.proj_out)
    pointwise = all(_is_core(each, "Conv2d") and each.kernel_size == (1, 1) and each.bias is not None for each in projections)
    return pointwise and _is_core(layer.norm, "GroupNorm") and _untouched(layer, SpatialTransformer) and all(map(_is_stock_block, layer.transformer_blocks))


def _is_stock_block(block: BasicTransformerBlock) -> bool:
    return (
        _untouched(block, BasicTransformerBlock)
        and not (block.ff_in or block.disable_self_attn or block.switch_temporal_ca_to_sa)
        and block.is_res
        and block.attn2 is not None
        and _untouched(block.ff, FeedForward)
        and len(block.ff.net) == 3
        and _untouched(block.ff.net[0], GEGLU)
        and isinstance(block.ff.net[1], torch.nn.Dropout)
    )


def _is_stock_resblock(layer: ResBlock) -> bool:
    kinds = ("GroupNorm", "SiLU", "Conv2d"), ("GroupNorm", "SiLU", "Dropout", "Conv2d")
    alike = all(
        [type(each).__name__ for each in layers] == list(names) and _is_core(layers[0], "GroupNorm") and all(map(_bare, layers[1:-1]))
        for layers, names in zip((layer.in_layers, layer.out_layers), kinds, strict=True)
    )
    usual = not (layer.updown or layer.use_scale_shift_norm or layer.exchange_temb_dims or layer.skip_t_emb)
    return _plain_run() and usual and alike and _untouched(layer, ResBlock)


def _is_usual(layer: Upsample) -> bool:
    conv = layer.conv if layer.use_conv and layer.dims == 2 else None
    usual = conv is not None and (conv.kernel_size, conv.stride, conv.padding, conv.dilation, conv.groups) == ((3, 3), (1, 1), (1, 1), (1, 1), 1)
    return usual and conv.padding_mode == "zeros" and conv.bias is not None and _untouched(layer, Upsample) and _is_core(conv, "Conv2d")
