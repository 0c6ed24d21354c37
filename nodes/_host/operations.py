"""The motion module's layers as ComfyUI manages weights: cast, moved, patched and read from the drive when they are needed."""

import comfy.ops
from torch import Tensor

from ...motion_modules import kernels
from ...motion_modules.layers import tokens_in, tokens_out


class _Cast:
    """In front of a class of ComfyUI's: `compute` gets the weights as its own arithmetic would, and they are given back whatever happens."""

    def forward_comfy_cast_weights(self, x: Tensor, *rest: Tensor) -> Tensor:
        weight, bias, stream = comfy.ops.cast_bias_weight(self, x, offloadable=True)
        try:
            return self.compute(x, weight, bias, *rest)
        finally:
            comfy.ops.uncast_bias_weight(self, weight, bias, stream)


class Operations(comfy.ops.manual_cast):
    """ComfyUI's layers, and those that it has not (see `motion_modules.layers.Operations`)."""

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
