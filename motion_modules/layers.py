"""The temporal transformer of AnimateDiff (guoyww/AnimateDiff, animatediff/models/motion_module.py).

Letters: b videos or conds, f frames, c channels, h w size, n = b h w sequences, d head width.
"""

import math
from types import ModuleType

import torch
from einops import rearrange
from torch import Tensor

HEADS = 8
GROUPS = 32
# CUDA kernels of attention put the batch into a grid axis of at most 65535; beyond this many sequences they are cut.
MAX_SEQUENCES = 2**15


def positional_encoding(frames: int, channels: int, like: Tensor) -> Tensor:
    """The sinusoid that AnimateDiff adds before each temporal attention.

    Returns (frames, channels) on like's device and in its dtype, computed in float32 as every checkpoint's table was.
    """
    position = torch.arange(frames, device=like.device, dtype=torch.float32)[:, None]
    rate = torch.exp(torch.arange(0, channels, 2, device=like.device, dtype=torch.float32) * (-math.log(10000.0) / channels))
    angle = position * rate
    return torch.stack((angle.sin(), angle.cos()), dim=-1).flatten(1).to(like.dtype)


def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Attention over frames. q, k, v: (n, heads, f, d). Returns the same shape."""
    if q.shape[0] <= MAX_SEQUENCES:
        return torch.nn.functional.scaled_dot_product_attention(q, k, v)
    parts = zip(q.split(MAX_SEQUENCES), k.split(MAX_SEQUENCES), v.split(MAX_SEQUENCES), strict=True)
    return torch.cat([torch.nn.functional.scaled_dot_product_attention(*part) for part in parts])


class TemporalAttention(torch.nn.Module):
    """Self-attention of every pixel with itself in the other frames."""

    def __init__(self, channels: int, operations: ModuleType, **factory):
        super().__init__()
        self.to_q = operations.Linear(channels, channels, bias=False, **factory)
        self.to_k = operations.Linear(channels, channels, bias=False, **factory)
        self.to_v = operations.Linear(channels, channels, bias=False, **factory)
        self.to_out = torch.nn.ModuleList([operations.Linear(channels, channels, **factory)])

    def forward(self, x: Tensor) -> Tensor:
        """x: (n, f, c). Returns the same shape."""
        q, k, v = (rearrange(to(x), "n f (heads d) -> n heads f d", heads=HEADS) for to in (self.to_q, self.to_k, self.to_v))
        return self.to_out[0](rearrange(attend(q, k, v), "n heads f d -> n f (heads d)"))


class GEGLU(torch.nn.Module):
    """A gated linear unit with GELU (erf), arXiv 2002.05202."""

    def __init__(self, channels: int, inner: int, operations: ModuleType, **factory):
        super().__init__()
        self.proj = operations.Linear(channels, 2 * inner, **factory)

    def forward(self, x: Tensor) -> Tensor:
        """x: (..., channels). Returns (..., inner)."""
        value, gate = self.proj(x).chunk(2, dim=-1)
        return value * torch.nn.functional.gelu(gate)


class FeedForward(torch.nn.Module):
    """GEGLU to four times the width and back. `net` has a hole at 1, where the original keeps its dropout."""

    def __init__(self, channels: int, operations: ModuleType, **factory):
        super().__init__()
        inner = 4 * channels
        self.net = torch.nn.ModuleList(
            [GEGLU(channels, inner, operations, **factory), torch.nn.Identity(), operations.Linear(inner, channels, **factory)]
        )

    def forward(self, x: Tensor) -> Tensor:
        """x: (..., channels). Returns the same shape."""
        return self.net[2](self.net[0](x))


class TemporalBlock(torch.nn.Module):
    """Two temporal self-attentions and a feed-forward, each normed before and added to its input."""

    def __init__(self, channels: int, operations: ModuleType, **factory):
        super().__init__()
        self.norm1 = operations.LayerNorm(channels, **factory)
        self.attn1 = TemporalAttention(channels, operations, **factory)
        self.norm2 = operations.LayerNorm(channels, **factory)
        self.attn2 = TemporalAttention(channels, operations, **factory)
        self.norm3 = operations.LayerNorm(channels, **factory)
        self.ff = FeedForward(channels, operations, **factory)

    def forward(self, x: Tensor, positions: Tensor) -> Tensor:
        """x: (n, f, c); positions: (f, c), added to what both attentions see. Returns x's shape."""
        x = x + self.attn1(self.norm1(x) + positions)
        x = x + self.attn2(self.norm2(x) + positions)
        return x + self.ff(self.norm3(x))


class TemporalTransformer(torch.nn.Module):
    """One motion module: lets every pixel look at the same pixel of the other frames.

    The published `proj_out` is trained; a zero one makes the module the identity.
    """

    def __init__(self, channels: int, operations: ModuleType, **factory):
        super().__init__()
        self.norm = operations.GroupNorm(GROUPS, channels, eps=1e-6, **factory)
        self.proj_in = operations.Linear(channels, channels, **factory)
        self.transformer_blocks = torch.nn.ModuleList([TemporalBlock(channels, operations, **factory)])
        self.proj_out = operations.Linear(channels, channels, **factory)

    def branch(self, x: Tensor, frames: int, pooled_norm: bool = False) -> Tensor:
        """What the module adds to x.

        Args:
            x: ((b f) c h w), frames of one video next to each other.
            frames: f.
            pooled_norm: GroupNorm statistics over all frames at once, as diffusers computes them, instead of per frame
                as AnimateDiff and AnimateLCM were trained.
        Returns: x's shape.
        """
        height, width = x.shape[-2:]
        if pooled_norm:
            h = rearrange(x, "(b f) c h w -> b c f h w", f=frames)
            h = rearrange(self.norm(h), "b c f h w -> (b h w) f c")
        else:
            h = rearrange(self.norm(x), "(b f) c h w -> (b h w) f c", f=frames)
        h = self.proj_in(h)
        positions = positional_encoding(frames, h.shape[-1], h)
        for block in self.transformer_blocks:
            h = block(h, positions)
        return rearrange(self.proj_out(h), "(b h w) f c -> (b f) c h w", h=height, w=width)

    def forward(self, x: Tensor, frames: int, strength: float | Tensor = 1.0, pooled_norm: bool = False) -> Tensor:
        """x + strength * branch(x); x itself, bit for bit, at strength 0.

        Args: as in `branch`.
            strength: a number, or one for each place, (f or 1, 1, h, w) of any h and w.
        """
        if isinstance(strength, Tensor):
            places = torch.nn.functional.interpolate(strength.to(x), x.shape[-2:], mode="area").expand(frames, -1, -1, -1)
            return x + places.repeat(len(x) // frames, 1, 1, 1) * self.branch(x, frames, pooled_norm)
        if strength == 0:
            return x
        branch = self.branch(x, frames, pooled_norm)
        return x + (branch if strength == 1 else strength * branch)
