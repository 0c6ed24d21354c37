"""Weights as ComfyUI manages them, cast, moved, patched and read from the drive when they are needed, and the motion module's layers made of that."""

import comfy.ops
import torch
from torch import Tensor

from ...motion_modules import kernels
from ...motion_modules.layers import tokens_in, tokens_out


def at_hand(layer: torch.nn.Module, x: Tensor) -> tuple[Tensor, Tensor | None] | None:
    """Weight and bias of one of ComfyUI's layers where nothing has to be done to them for x, None where something has.

    What ComfyUI's own cast would give, for a fraction of its time: with small clips a step takes as long as Python does.
    """
    if layer.weight_function or layer.bias_function or "_v" in vars(layer):  # patched, or paged in by ComfyUI's dynamic VRAM
        return None
    weight, bias = layer.weight, layer.bias
    if weight is None or weight.dtype != x.dtype or weight.device != x.device:
        return None
    return (weight, bias) if bias is None or (bias.dtype == x.dtype and bias.device == x.device) else None


class _Cast:
    """In front of a class of ComfyUI's: `compute` gets the weights as its own arithmetic would, and they are given back whatever happens."""

    def forward(self, x: Tensor, *rest: Tensor) -> Tensor:
        weights = at_hand(self, x)
        return super().forward(x, *rest) if weights is None else self.compute(x, *weights, *rest)

    def forward_comfy_cast_weights(self, x: Tensor, *rest: Tensor) -> Tensor:
        weight, bias, stream = comfy.ops.cast_bias_weight(self, x, offloadable=True)
        try:
            return self.compute(x, weight, bias, *rest)
        finally:
            comfy.ops.uncast_bias_weight(self, weight, bias, stream)


class Operations(comfy.ops.manual_cast):
    """ComfyUI's layers, and those that it has not (see `motion_modules.layers.Operations`)."""

    class Linear(_Cast, comfy.ops.manual_cast.Linear):
        """A linear layer over the last dimension."""

        compute = staticmethod(torch.nn.functional.linear)

    class TokensIn(_Cast, comfy.ops.manual_cast.Linear):
        """`tokens_in`."""

        compute = staticmethod(tokens_in)

    class TokensOut(_Cast, comfy.ops.manual_cast.Linear):
        """`tokens_out`."""

        compute = staticmethod(tokens_out)

    class PositionedNorm(_Cast, comfy.ops.manual_cast.LayerNorm):
        """LayerNorm, and a position on top where it is given."""

        def compute(self, x: Tensor, weight: Tensor, bias: Tensor, positions: Tensor | None = None) -> Tensor:
            """x: (n, f, c); positions: (f, c). Returns x's shape."""
            return kernels.norm(x, weight, bias, self.eps, positions)

    class PictureNorm(_Cast, comfy.ops.manual_cast.GroupNorm):
        """GroupNorm of every picture."""

        def compute(self, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
            """x: (n, c, ...). Returns x's shape."""
            return kernels.group_norm(x, self.num_groups, weight, bias, self.eps)
