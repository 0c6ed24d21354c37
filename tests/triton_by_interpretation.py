"""Prints the errors of the Triton kernels and of torch beside float64 as JSON; test_kernels.py runs it with TRITON_INTERPRET=1, which Triton reads when it is imported.

bfloat16 is left out: the interpreter computes tl.dot of it wrongly (it multiplies the raw 16-bit integers).
"""

import json
import sys

import torch
from stacks import relative
from torch.nn.functional import gelu, layer_norm

from animatediff_turbo.motion_modules import kernels, triton_kernels


def qkv(dtype, width, frames, n=5, scale=1.0, seed=0):
    """As the fused form makes them: views of one product, not contiguous."""
    x = torch.randn(n, frames, 3, 8, width, generator=torch.Generator().manual_seed(seed)).to(dtype) * scale
    return x.permute(2, 0, 3, 1, 4)


def doubles(tensors):
    return [tensor.double() for tensor in tensors]


def attention(name, q, k, v):
    right = kernels.plain_attention(*doubles((q, k, v)))
    return {"case": name, "kernel": relative(triton_kernels.attention(q, k, v), right), "torch": relative(kernels.plain_attention(q, k, v), right)}


def main():
    results = []
    for dtype in (torch.float32, torch.float16):
        for width, frames in [(40, f) for f in (1, 2, 4, 8, 12, 16, 17, 24, 32, 64)] + [(d, f) for d in (8, 64, 80, 160) for f in (1, 16, 24)]:
            results.append(attention(f"{dtype} {width} {frames}", *qkv(dtype, width, frames)))
        results.append(attention(f"{dtype} extreme", *qkv(dtype, 40, 16, scale=30.0)))
        results.append(attention(f"{dtype} constant", *torch.full((3, 3, 8, 16, 40), 2.0, dtype=dtype)))
        q, k, v = (torch.randn(3, 16, 8, 48, generator=torch.Generator().manual_seed(i)).to(dtype)[..., i : i + 40].transpose(1, 2) for i in range(3))
        results.append(attention(f"{dtype} other strides", q, k, v))
        for channels in (32, 320, 640, 1280):
            x, positions = torch.randn(7, 16, channels).to(dtype) * 3 + 1, torch.randn(16, channels).to(dtype)
            weight, bias = torch.randn(2, channels).to(dtype)
            right = layer_norm(x.double(), (channels,), weight.double(), bias.double()) + positions.double()
            found, plain = triton_kernels.norm(x, weight, bias, 1e-5, positions), kernels.norm(x, weight, bias, 1e-5, positions)
            results.append({"case": f"norm {dtype} {channels}", "kernel": relative(found, right), "torch": relative(plain, right)})
            found, plain = triton_kernels.norm(x, weight, bias, 1e-5), kernels.norm(x, weight, bias, 1e-5)
            right = right - positions.double()
            results.append({"case": f"norm without positions {dtype} {channels}", "kernel": relative(found, right), "torch": relative(plain, right)})
            gated = torch.randn(7, 3, 2 * channels).to(dtype)
            value, gate = gated.double().chunk(2, -1)
            right = value * gelu(gate)
            results.append({"case": f"geglu {dtype} {channels}", "kernel": relative(triton_kernels.geglu(gated), right), "torch": relative(kernels.geglu(gated), right)})
        for channels, side in ((32, 3), (320, 8), (640, 16), (1280, 8), (960, 12)):
            x, shift = torch.randn(3, channels, side, side + 1).to(dtype) * 2 + 5, torch.randn(3, channels).to(dtype)
            weight, bias = torch.randn(2, channels).to(dtype)
            for options in ({}, {"silu": True}, {"silu": True, "shift": shift}):
                doubled = {name: value.double() if name == "shift" else value for name, value in options.items()}
                right = kernels.group_norm(x.double(), 32, weight.double(), bias.double(), 1e-5, **doubled)
                found, plain = (each.group_norm(x, 32, weight, bias, 1e-5, **options) for each in (triton_kernels, kernels))
                results.append({"case": f"group norm {dtype} {channels} {side} {sorted(options)}", "kernel": relative(found, right), "torch": relative(plain, right)})
    q, k, v = qkv(torch.float32, 40, 16)
    shuffled = torch.randperm(16, generator=torch.Generator().manual_seed(1))
    whole = triton_kernels.attention(q, k, v)
    laws = {
        "frames in another order": relative(triton_kernels.attention(*(each[:, :, shuffled] for each in (q, k, v))), whole[:, shuffled]),
        "one sequence alone": relative(triton_kernels.attention(q[3:4], k[3:4], v[3:4]), whole[3:4]),
        "one frame is the value": relative(triton_kernels.attention(*(each[:, :, :1] for each in (q, k, v))), v[:, :, :1].transpose(1, 2).flatten(2)),
    }
    sys.stdout.write(json.dumps({"errors": results, "laws": laws}))


if __name__ == "__main__":
    main()
