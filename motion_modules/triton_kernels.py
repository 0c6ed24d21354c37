"""The motion module's kernels in Triton, for `kernels`; importing this needs Triton.

Each does in one pass over memory what torch does in two or more, in float32 between reading and writing. The sizes of tiles are what was fastest on an
H200 (benchmarks/RESULTS.md).
"""

import triton
import triton.language as tl
from torch import Tensor

LOG2E = 1.4426950408889634


@triton.jit
def _attention(
    q, k, v, out, scale, n, q_n, q_h, q_f, k_n, k_h, k_f, v_n, v_h, v_f,
    heads: tl.constexpr, frames: tl.constexpr, slots: tl.constexpr, width: tl.constexpr, part: tl.constexpr, rows: tl.constexpr,
):  # fmt: skip
    # A program takes a few sequences of one head as the rows of one tile and masks what is not of the same sequence: reading costs time, products don't.
    # slots: frames up to a power of 2; part: how much of a head's width is taken at once
    head = tl.program_id(0) % heads
    row = tl.arange(0, rows)
    sequence = ((tl.program_id(0) // heads) * (rows // slots) + row // slots).to(tl.int64)  # 128 frames of 1024x1024 have more than 2**31 elements
    frame = row % slots
    there = (frame < frames) & (sequence < n)
    column = tl.arange(0, part)
    q += (sequence * q_n + head * q_h + frame * q_f)[:, None]
    k += (sequence * k_n + head * k_h + frame * k_f)[:, None]
    v += (sequence * v_n + head * v_h + frame * v_f)[:, None]
    out += ((sequence * frames + frame) * heads * width + head * width)[:, None]
    scores = tl.zeros((rows, rows), dtype=tl.float32)
    for start in tl.static_range(0, width, part):
        at = (start + column)[None, :]
        mask = there[:, None] & (at < width)
        scores = tl.dot(tl.load(q + at, mask=mask, other=0.0), tl.trans(tl.load(k + at, mask=mask, other=0.0)), scores, input_precision="ieee")
    same = (row // slots)[:, None] == (row // slots)[None, :]
    scores = tl.where(same & (frame < frames)[None, :], scores * scale, float("-inf"))
    weights = tl.exp2(scores - tl.max(scores, 1)[:, None])  # divided by their sum at the end: the largest is 1, which every dtype holds exactly
    total = tl.sum(weights, 1)[:, None]
    for start in tl.static_range(0, width, part):
        at = (start + column)[None, :]
        mask = there[:, None] & (at < width)
        values = tl.load(v + at, mask=mask, other=0.0)
        sums = tl.dot(weights.to(values.dtype), values, input_precision="ieee")
        tl.store(out + at, (sums / total).to(values.dtype), mask=mask)


def attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Attention over frames. q, k, v: (n, heads, f, d), d contiguous, of any other strides. Returns (n, f, heads * d)."""
    n, heads, frames, width = q.shape
    slots = max(16, triton.next_power_of_2(frames))
    rows = max(32 if width <= 64 else 16, slots)
    out = q.new_empty(n, frames, heads * width)
    strides = (stride for tensor in (q, k, v) for stride in tensor.stride()[:3])
    _attention[(triton.cdiv(n, rows // slots) * heads,)](
        q, k, v, out, width**-0.5 * LOG2E, n, *strides,
        heads=heads, frames=frames, slots=slots, width=width, part=max(16, triton.next_power_of_2(width)), rows=rows, num_warps=1,
    )  # fmt: skip
    return out


@triton.jit
def _norm(
    x, weight, bias, positions, out, count, eps,
    frames: tl.constexpr, channels: tl.constexpr, slots: tl.constexpr, rows: tl.constexpr, placed: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0) * rows + tl.arange(0, rows)
    column = tl.arange(0, slots)
    there = (row < count)[:, None] & (column < channels)[None, :]
    at = row.to(tl.int64)[:, None] * channels + column[None, :]
    values = tl.load(x + at, mask=there, other=0.0).to(tl.float32)
    centred = tl.where((column < channels)[None, :], values - (tl.sum(values, 1) / channels)[:, None], 0.0)
    deviation = tl.sqrt(tl.sum(centred * centred, 1) / channels + eps)
    scale = tl.load(weight + column, mask=column < channels, other=0.0).to(tl.float32)
    shift = tl.load(bias + column, mask=column < channels, other=0.0).to(tl.float32)
    result = centred / deviation[:, None] * scale[None, :] + shift[None, :]
    if placed:
        result += tl.load(positions + (row % frames)[:, None] * channels + column[None, :], mask=there, other=0.0).to(tl.float32)
    tl.store(out + at, result.to(out.dtype.element_ty), mask=there)


def norm(x: Tensor, weight: Tensor, bias: Tensor, eps: float, positions: Tensor | None = None) -> Tensor:
    """LayerNorm, and a position on top where it is given. x: (n, f, c); weight, bias: (c,); positions: (f, c); all contiguous. Returns x's shape."""
    channels = x.shape[-1]
    count, rows = x.numel() // channels, 2 if channels <= 512 else 1
    out = x.new_empty(x.shape)
    _norm[(triton.cdiv(count, rows),)](
        x, weight, bias, bias if positions is None else positions, out, count, eps,
        frames=1 if positions is None else len(positions), channels=channels, slots=triton.next_power_of_2(channels), rows=rows,
        placed=positions is not None, num_warps=rows if channels <= 1024 else 2,
    )  # fmt: skip
    return out


@triton.jit
def _geglu(x, out, count, inner: tl.constexpr, block: tl.constexpr):
    at = tl.program_id(0).to(tl.int64) * block + tl.arange(0, block)
    there = at < count
    x += at // inner * (2 * inner) + at % inner
    value = tl.load(x, mask=there, other=0.0).to(tl.float32)
    gate = tl.load(x + inner, mask=there, other=0.0).to(tl.float32)
    tl.store(out + at, (value * 0.5 * gate * (1 + tl.erf(gate * 0.7071067811865476))).to(out.dtype.element_ty), mask=there)


def geglu(x: Tensor) -> Tensor:
    """The first half of x's last dimension times GELU of the second. x: (..., 2c), contiguous. Returns (..., c)."""
    out = x.new_empty(*x.shape[:-1], x.shape[-1] // 2)
    _geglu[(triton.cdiv(out.numel(), 1024),)](x, out, out.numel(), inner=out.shape[-1], block=1024, num_warps=4)
    return out


@triton.jit
def _group_norm(
    x, weight, bias, shift, out, channels, pixels, groups, width, eps,
    rows: tl.constexpr, block: tl.constexpr, shifted: tl.constexpr, silu: tl.constexpr,
):  # fmt: skip
    # A program norms one group of one picture, whose channels lie one after another; width: channels of a group
    picture, group = tl.program_id(0) // groups, tl.program_id(0) % groups
    row = tl.arange(0, rows)[:, None]
    column = tl.arange(0, block)[None, :]
    channel = group * width + row
    start = tl.program_id(0).to(tl.int64) * width * pixels
    x += start + row * pixels + column
    out += start + row * pixels + column
    offset = tl.zeros((rows, 1), dtype=tl.float32)
    if shifted:
        offset = tl.load(shift + picture * channels + channel, mask=row < width, other=0.0).to(tl.float32)
    mean, squares = 0.0, 0.0
    for at in range(0, pixels, block):  # mean and squared deviations of parts, joined as in Chan et al. 1983: one pass, and no loss where the mean is large
        there = (row < width) & (at + column < pixels)
        values = tl.load(x + at, mask=there, other=0.0).to(tl.float32) + offset
        count = width * tl.minimum(block, pixels - at).to(tl.float32)
        part = tl.sum(tl.where(there, values, 0.0)) / count
        deviations = tl.where(there, values - part, 0.0)
        before = (at * width).to(tl.float32)
        squares += tl.sum(deviations * deviations) + (part - mean) * (part - mean) * before * count / (before + count)
        mean += (part - mean) * count / (before + count)
    scale = tl.load(weight + channel, mask=row < width, other=0.0).to(tl.float32) / tl.sqrt(squares / (width * pixels) + eps)
    offset = tl.load(bias + channel, mask=row < width, other=0.0).to(tl.float32) + (offset - mean) * scale
    for at in range(0, pixels, block):
        there = (row < width) & (at + column < pixels)
        values = tl.load(x + at, mask=there, other=0.0).to(tl.float32) * scale + offset
        if silu:
            values = values / (1 + tl.exp(-values))
        tl.store(out + at, values.to(out.dtype.element_ty), mask=there)


def group_norm(x: Tensor, groups: int, weight: Tensor, bias: Tensor, eps: float, shift: Tensor | None = None, silu: bool = False) -> Tensor:
    """GroupNorm of x (+ shift), and SiLU after it where asked for. x: (n, c, h, w); weight, bias: (c,); shift: (n, c); all contiguous. Returns x's shape."""
    channels, pixels = x.shape[1], x.shape[2] * x.shape[3]
    width = channels // groups
    rows = triton.next_power_of_2(width)
    block = max(16, min(triton.next_power_of_2(pixels), 8192 // rows))
    out = x.new_empty(x.shape)
    _group_norm[(len(x) * groups,)](
        x, weight, bias, bias if shift is None else shift, out, channels, pixels, groups, width, eps,
        rows=rows, block=block, shifted=shift is not None, silu=silu, num_warps=8 if rows * block > 2048 else 4,
    )  # fmt: skip
    return out
