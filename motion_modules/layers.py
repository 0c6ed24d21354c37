"""The temporal transformer of AnimateDiff (guoyww/AnimateDiff, animatediff/models/motion_module.py).

Letters: b videos or conds, f frames, c channels, h w size, n = h w b sequences, d head width.

Every layer has two forms of the same arithmetic. The plain one has a checkpoint's layers under their names, works with torch.nn and can be trained. The
fused one, which `checkpoint.Checkpoint.build` makes, is for inference: one product for query, key and value, and projections that turn the UNet's
layout into that of sequences and back while they multiply, so that nothing is ever only moved. Neither keeps anything from one call to the next.
"""

import math

import torch
from einops import rearrange
from torch import Tensor

from . import kernels

HEADS = 8
GROUPS = 32
FEW_PIXELS = 36
"""In pictures of so many pixels and fewer, one product for each picture takes a processor longer than moving all of them for one product (measured)."""


def positional_encoding(frames: int, channels: int, like: Tensor) -> Tensor:
    """The sinusoid that AnimateDiff adds before each temporal attention.

    Returns (frames, channels) on like's device and in its dtype, computed in float32 as every checkpoint's table was.
    """
    position = torch.arange(frames, device=like.device, dtype=torch.float32)[:, None]
    rate = torch.exp(torch.arange(0, channels, 2, device=like.device, dtype=torch.float32) * (-math.log(10000.0) / channels))
    angle = position * rate
    return torch.stack((angle.sin(), angle.cos()), dim=-1).flatten(1).to(like.dtype)


def few_pixels(x: Tensor, pixels: int) -> bool:
    """Whether x, pictures of so many pixels, is better moved than multiplied picture by picture."""
    return x.device.type == "cpu" and pixels <= FEW_PIXELS  # in this order: compiled for a GPU, nothing depends on the number of pixels


def tokens_in(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """A linear layer over the channels of pictures, whose result has the channels last. x: (n, c, p). Returns (p, n, c)."""
    # autograd has no out=, a compiler joins the move with what is before it, and of other devices some have written nothing into an out= like this one
    if torch.compiler.is_compiling() or torch.is_grad_enabled() or x.device.type not in ("cuda", "cpu"):
        return torch.nn.functional.linear(x.permute(2, 0, 1), weight, bias)
    if few_pixels(x, x.shape[2]):
        return torch.nn.functional.linear(x.permute(2, 0, 1).contiguous(), weight, bias)
    tokens = x.new_empty(x.shape[2], x.shape[0], len(weight))
    torch.baddbmm(bias, x.transpose(1, 2), weight.t().expand(len(x), -1, -1), out=tokens.transpose(0, 1))
    return tokens


def tokens_out(tokens: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """The way back. tokens: (p, n, c). Returns (n, c, p)."""
    if few_pixels(tokens, len(tokens)):
        return torch.nn.functional.linear(tokens, weight, bias).permute(1, 2, 0).contiguous()
    return torch.baddbmm(bias[:, None], weight.expand(tokens.shape[1], -1, -1), tokens.permute(1, 2, 0))


class TokensIn(torch.nn.Linear):
    """`tokens_in` as a layer."""

    def forward(self, x: Tensor) -> Tensor:
        """x: (n, c, p). Returns (p, n, c)."""
        return tokens_in(x, self.weight, self.bias)


class TokensOut(torch.nn.Linear):
    """`tokens_out` as a layer."""

    def forward(self, tokens: Tensor) -> Tensor:
        """tokens: (p, n, c). Returns (n, c, p)."""
        return tokens_out(tokens, self.weight, self.bias)


class PositionedNorm(torch.nn.LayerNorm):
    """LayerNorm, and a position on top where it is given."""

    def forward(self, x: Tensor, positions: Tensor | None = None) -> Tensor:
        """x: (n, f, c); positions: (f, c). Returns x's shape."""
        return kernels.norm(x, self.weight, self.bias, self.eps, positions)


class PictureNorm(torch.nn.GroupNorm):
    """GroupNorm of every picture."""

    def forward(self, x: Tensor) -> Tensor:
        """x: (n, c, ...). Returns x's shape."""
        return kernels.group_norm(x, self.num_groups, self.weight, self.bias, self.eps)


class Operations:
    """torch.nn's layers, and those that it has not; a host passes its own of the same names and arguments."""

    Linear, LayerNorm, GroupNorm = torch.nn.Linear, torch.nn.LayerNorm, torch.nn.GroupNorm
    TokensIn, TokensOut, PositionedNorm, PictureNorm = TokensIn, TokensOut, PositionedNorm, PictureNorm


class TemporalAttention(torch.nn.Module):
    """Self-attention of every pixel with itself in the other frames. fused: query, key and value come from one layer, in this order."""

    def __init__(self, channels: int, operations: type[Operations], fused: bool = False, **factory):
        super().__init__()
        if fused:
            self.to_qkv = operations.Linear(channels, 3 * channels, bias=False, **factory)
        else:
            self.to_q = operations.Linear(channels, channels, bias=False, **factory)
            self.to_k = operations.Linear(channels, channels, bias=False, **factory)
            self.to_v = operations.Linear(channels, channels, bias=False, **factory)
        self.fused = fused
        self.to_out = torch.nn.ModuleList([operations.Linear(channels, channels, **factory)])

    def forward(self, x: Tensor) -> Tensor:
        """x: (n, f, c). Returns the same shape."""
        if self.fused:
            q, k, v = rearrange(self.to_qkv(x), "n f (qkv heads d) -> qkv n heads f d", qkv=3, heads=HEADS)
        else:
            q, k, v = (rearrange(to(x), "n f (heads d) -> n heads f d", heads=HEADS) for to in (self.to_q, self.to_k, self.to_v))
        return self.to_out[0](kernels.attention(q, k, v))


class GEGLU(torch.nn.Module):
    """A gated linear unit with GELU (erf), arXiv 2002.05202."""

    def __init__(self, channels: int, inner: int, operations: type[Operations], **factory):
        super().__init__()
        self.proj = operations.Linear(channels, 2 * inner, **factory)

    def forward(self, x: Tensor) -> Tensor:
        """x: (..., channels). Returns (..., inner)."""
        return kernels.geglu(self.proj(x))


class FeedForward(torch.nn.Module):
    """GEGLU to four times the width and back. `net` has a hole at 1, where the original keeps its dropout."""

    def __init__(self, channels: int, operations: type[Operations], **factory):
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

    def __init__(self, channels: int, operations: type[Operations], fused: bool = False, **factory):
        super().__init__()
        norm = operations.PositionedNorm if fused else operations.LayerNorm
        self.fused = fused
        self.norm1 = norm(channels, **factory)
        self.attn1 = TemporalAttention(channels, operations, fused, **factory)
        self.norm2 = norm(channels, **factory)
        self.attn2 = TemporalAttention(channels, operations, fused, **factory)
        self.norm3 = norm(channels, **factory)
        self.ff = FeedForward(channels, operations, **factory)

    def forward(self, x: Tensor, positions: Tensor) -> Tensor:
        """x: (n, f, c); positions: (f, c), added to what both attentions see. Returns x's shape."""
        for norm, attention in ((self.norm1, self.attn1), (self.norm2, self.attn2)):
            x = x + attention(norm(x, positions) if self.fused else norm(x) + positions)
        return x + self.ff(self.norm3(x))


class TemporalTransformer(torch.nn.Module):
    """One motion module: lets every pixel look at the same pixel of the other frames. fused: see this file's head.

    The published `proj_out` is trained; a zero one makes the module the identity.
    """

    def __init__(self, channels: int, operations: type[Operations] = Operations, fused: bool = False, **factory):
        super().__init__()
        self.fused = fused
        self.norm = (operations.PictureNorm if fused else operations.GroupNorm)(GROUPS, channels, eps=1e-6, **factory)
        self.proj_in = (operations.TokensIn if fused else operations.Linear)(channels, channels, **factory)
        self.transformer_blocks = torch.nn.ModuleList([TemporalBlock(channels, operations, fused, **factory)])
        self.proj_out = (operations.TokensOut if fused else operations.Linear)(channels, channels, **factory)

    def branch(self, x: Tensor, frames: int, pooled_norm: bool = False, positions: Tensor | None = None) -> Tensor:
        """What the module adds to x.

        Args:
            x: ((b f) c h w), frames of one video next to each other.
            frames: f.
            pooled_norm: GroupNorm statistics over all frames at once, as diffusers computes them, instead of per frame
                as AnimateDiff and AnimateLCM were trained.
            positions: `positional_encoding` of these frames and channels, for callers that have it; it is computed when None.
        Returns: x's shape.
        """
        if positions is None:
            positions = positional_encoding(frames, x.shape[1], x)
        if pooled_norm:
            h = self.norm(rearrange(x, "(b f) c h w -> b c f (h w)", f=frames))
            h = rearrange(h, "b c f p -> (b f) c p")
        else:
            h = rearrange(self.norm(x), "n c h w -> n c (h w)")
        h = self.proj_in(h if self.fused else rearrange(h, "n c p -> p n c"))  # p (b f) c
        tokens = rearrange(h, "p (b f) c -> (p b) f c", f=frames)
        for block in self.transformer_blocks:
            tokens = block(tokens, positions)
        h = self.proj_out(tokens.view(h.shape))
        return (h if self.fused else rearrange(h, "p n c -> n c p")).view_as(x)

    def forward(
        self, x: Tensor, frames: int, strength: float | Tensor = 1.0, pooled_norm: bool = False, positions: Tensor | None = None
    ) -> Tensor:
        """x + strength * branch(x); x itself, bit for bit, at strength 0.

        Args: as in `branch`.
            strength: a number, or one for each place, (f or 1, 1, h, w) of any h and w.
        """
        if isinstance(strength, Tensor):
            places = torch.nn.functional.interpolate(strength.to(x), x.shape[-2:], mode="area").expand(frames, -1, -1, -1)
            return x + places.repeat(len(x) // frames, 1, 1, 1) * self.branch(x, frames, pooled_norm, positions)
        if strength == 0:
            return x
        branch = self.branch(x, frames, pooled_norm, positions)
        return x + (branch if strength == 1 else strength * branch)
