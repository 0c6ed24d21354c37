"""The motion module's layers as ComfyUI manages weights: cast, moved, patched and read from the drive when they are needed."""

import comfy.ops
from torch import Tensor

from ...motion_modules import kernels
from ...motion_modules.layers import tokens_in, tokens_out


class Operations(comfy.ops.manual_cast):
    """ComfyUI's layers, and those that it has not (see `motion_modules.layers.Operations`)."""

    class TokensIn(comfy.ops.manual_cast.Linear):
        """`tokens_in`."""

        def forward_comfy_cast_weights(self, x: Tensor) -> Tensor:
            """x: (n, c, p). Returns (p, n, c)."""
            weight, bias, stream = comfy.ops.cast_bias_weight(self, x, offloadable=True)
            try:
                return tokens_in(x, weight, bias)
            finally:
                comfy.ops.uncast_bias_weight(self, weight, bias, stream)

    class TokensOut(comfy.ops.manual_cast.Linear):
        """`tokens_out`."""

        def forward_comfy_cast_weights(self, tokens: Tensor) -> Tensor:
            """tokens: (p, n, c). Returns (n, c, p)."""
            weight, bias, stream = comfy.ops.cast_bias_weight(self, tokens, offloadable=True)
            try:
                return tokens_out(tokens, weight, bias)
            finally:
                comfy.ops.uncast_bias_weight(self, weight, bias, stream)

    class PositionedNorm(comfy.ops.manual_cast.LayerNorm):
        """LayerNorm, and a position on top where it is given."""

        def forward_comfy_cast_weights(self, x: Tensor, positions: Tensor | None = None) -> Tensor:
            """x: (n, f, c); positions: (f, c). Returns x's shape."""
            weight, bias, stream = comfy.ops.cast_bias_weight(self, x, offloadable=True)
            try:
                return kernels.norm(x, weight, bias, self.eps, positions)
            finally:
                comfy.ops.uncast_bias_weight(self, weight, bias, stream)

    class PictureNorm(comfy.ops.manual_cast.GroupNorm):
        """GroupNorm of every picture."""

        def forward_comfy_cast_weights(self, x: Tensor) -> Tensor:
            """x: (n, c, ...). Returns x's shape."""
            weight, bias, stream = comfy.ops.cast_bias_weight(self, x, offloadable=True)
            try:
                return kernels.group_norm(x, self.num_groups, weight, bias, self.eps)
            finally:
                comfy.ops.uncast_bias_weight(self, weight, bias, stream)
