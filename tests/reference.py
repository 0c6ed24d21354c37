"""The original AnimateDiff's arithmetic, operation by operation, in float64 (guoyww/AnimateDiff, animatediff/models/motion_module.py)."""

import math

import torch


def encoding(frames, channels):
    table = torch.zeros(frames, channels, dtype=torch.float64)
    for position in range(frames):
        for i in range(0, channels, 2):
            angle = position * math.exp(i * -math.log(10000.0) / channels)
            table[position, i], table[position, i + 1] = math.sin(angle), math.cos(angle)
    return table


def linear(weights, name, x):
    y = x @ weights[f"{name}.weight"].T
    return y + weights[f"{name}.bias"] if f"{name}.bias" in weights else y


def layer_norm(weights, name, x):
    mean, variance = x.mean(-1, keepdim=True), x.var(-1, unbiased=False, keepdim=True)
    return (x - mean) / (variance + 1e-5).sqrt() * weights[f"{name}.weight"] + weights[f"{name}.bias"]


def group_norm(weights, name, x, over):
    """x: (f, c, h, w); statistics of each of 32 groups over the dimensions in `over`."""
    f, c, h, w = x.shape
    groups = x.reshape(f, 32, c // 32, h, w)
    mean, variance = groups.mean(over, keepdim=True), groups.var(over, unbiased=False, keepdim=True)
    y = ((groups - mean) / (variance + 1e-6).sqrt()).reshape(f, c, h, w)
    return y * weights[f"{name}.weight"][:, None, None] + weights[f"{name}.bias"][:, None, None]


def attention(weights, name, x, heads=8):
    """x: (n, f, c)."""
    n, f, c = x.shape
    split = lambda y: y.reshape(n, f, heads, c // heads).transpose(1, 2)
    q, k, v = (split(linear(weights, f"{name}.to_{letter}", x)) for letter in "qkv")
    scores = (q @ k.transpose(-1, -2)) * (c // heads) ** -0.5
    return linear(weights, f"{name}.to_out.0", (scores.softmax(-1) @ v).transpose(1, 2).reshape(n, f, c))


def branch(weights, prefix, x, pooled=False):
    """What one temporal transformer adds to x, (f, c, h, w) of one video. weights: float64, the original's names."""
    f, c, h, w = x.shape
    prefix = f"{prefix}.temporal_transformer"
    y = group_norm(weights, f"{prefix}.norm", x, (0, 2, 3, 4) if pooled else (2, 3, 4))
    y = y.permute(2, 3, 0, 1).reshape(h * w, f, c)
    y = linear(weights, f"{prefix}.proj_in", y)
    block = f"{prefix}.transformer_blocks.0"
    for i in range(2):
        normed = layer_norm(weights, f"{block}.norms.{i}", y)
        y = attention(weights, f"{block}.attention_blocks.{i}", normed + encoding(f, c)) + y
    value, gate = linear(weights, f"{block}.ff.net.0.proj", layer_norm(weights, f"{block}.ff_norm", y)).chunk(2, dim=-1)
    gelu = gate * 0.5 * (1 + torch.erf(gate / math.sqrt(2)))
    y = linear(weights, f"{block}.ff.net.2", value * gelu) + y
    y = linear(weights, f"{prefix}.proj_out", y)
    return y.reshape(h, w, f, c).permute(2, 3, 0, 1)
