"""What the motion module, and the layers of a UNet around it, compute between their products: by Triton kernels on NVIDIA GPUs where Triton works, else by torch.

Under torch.compile the compiler joins these operations itself, but for attention, which it therefore gets as one operation,
`animatediff_turbo::temporal_attention`.
"""

import functools
import logging
import subprocess
from collections.abc import Iterator
from types import ModuleType

import torch
from torch import Tensor
from torch.nn import functional

logger = logging.getLogger(__name__)

NAME = "animatediff_turbo::temporal_attention"
# CUDA kernels of attention put the batch into a grid axis of at most 65535; beyond this many sequences they are cut.
MAX_SEQUENCES = 2**15
# Within these the kernels were measured to be faster (benchmarks/RESULTS.md) and their errors compared.
MAX_FRAMES, MAX_WIDTH, DTYPES = 32, 256, (torch.float16, torch.bfloat16)
CAPABILITY = (8, 0)
MAX_DIFFERENCE = 0.1  # of unit noise in bfloat16, the coarsest of DTYPES
# Numbers from which a kernel was not slower than torch's own by more than 0.01 ms; below, starting it takes longer than what it saves.
WORTH_NORM, WORTH_POSITIONED_NORM, WORTH_GROUP_NORM = 2**24, 2**23, 2**22


def attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Attention over frames. q, k, v: (n, heads, f, d). Returns (n, f, heads * d)."""
    if not _suits(q) or q.shape[2] > MAX_FRAMES or q.shape[3] > MAX_WIDTH:
        return plain_attention(q, k, v)
    return (temporal_attention if torch.compiler.is_compiling() else _attention)(q, k, v)


def norm(x: Tensor, weight: Tensor, bias: Tensor, eps: float, positions: Tensor | None = None) -> Tensor:
    """LayerNorm, and a position on top where it is given. x: (n, f, c); weight, bias: (c,); positions: (f, c). Returns x's shape."""
    worth = WORTH_NORM if positions is None else WORTH_POSITIONED_NORM
    if x.numel() >= worth and fast(x) and x.is_contiguous() and all(each is None or each.dtype == x.dtype for each in (weight, bias, positions)):
        from . import triton_kernels

        with torch.cuda.device(x.device):
            return triton_kernels.norm(x, weight, bias, eps, positions)
    result = functional.layer_norm(x, x.shape[-1:], weight, bias, eps)
    return result if positions is None else result + positions


def group_norm(x: Tensor, groups: int, weight: Tensor, bias: Tensor, eps: float, shift: Tensor | None = None, silu: bool = False) -> Tensor:
    """GroupNorm, of x + shift where that is given, and SiLU after it where asked for. x: (n, c, ...); weight, bias: (c,); shift: (n, c). Returns x's shape."""
    given = [each for each in (weight, bias, shift) if each is not None]
    worth = silu or x.numel() >= WORTH_GROUP_NORM
    if worth and fast(x) and x.ndim == 4 and all(each.dtype == x.dtype and each.is_contiguous() for each in (x, *given)):
        from . import triton_kernels

        with torch.cuda.device(x.device):
            return triton_kernels.group_norm(x, groups, weight, bias, eps, shift, silu)
    if shift is not None:
        x = x + shift.reshape(*shift.shape, *[1] * (x.ndim - 2))
    result = functional.group_norm(x, groups, weight, bias, eps)
    return functional.silu(result) if silu else result


def geglu(x: Tensor) -> Tensor:
    """The first half of x's last dimension times GELU (erf) of the second. x: (..., 2c). Returns (..., c)."""
    if fast(x) and x.is_contiguous():
        from . import triton_kernels

        with torch.cuda.device(x.device):
            return triton_kernels.geglu(x)
    return plain_geglu(x)


def plain_geglu(x: Tensor) -> Tensor:
    """`geglu` by torch."""
    value, gate = x.chunk(2, dim=-1)
    return value * functional.gelu(gate)


def plain_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """`attention` by torch."""
    parts = zip(q.split(MAX_SEQUENCES), k.split(MAX_SEQUENCES), v.split(MAX_SEQUENCES), strict=True)
    results = [functional.scaled_dot_product_attention(*part) for part in parts]
    result = results[0] if len(results) == 1 else torch.cat(results)
    return result.transpose(1, 2).flatten(2)


def _suits(x: Tensor) -> bool:
    return x.is_cuda and torch.version.hip is None and x.dtype in DTYPES and not x.requires_grad


def fast(x: Tensor) -> bool:
    """Whether x is of those for which there are kernels here, and now, that is, not while torch.compile looks on."""
    return not torch.compiler.is_compiling() and _suits(x) and works(x.device)


def works(device: torch.device) -> bool:
    """Whether Triton is here, compiles for a device and computes what torch does; what is wrong is logged once."""
    try:
        return _works(device)
    except torch.cuda.OutOfMemoryError:  # there may be memory when it is asked for the next time
        return False


@functools.cache  # which keeps no exceptions
def _works(device: torch.device) -> bool:
    if device.type != "cuda" or torch.cuda.get_device_capability(device) < CAPABILITY:
        return False
    try:
        from triton.errors import TritonError

        from . import triton_kernels
    except ImportError:
        logger.info("There is no Triton, with which the motion module would be faster on this GPU.")
        return False
    try:
        with torch.cuda.device(device):
            error = max(each.abs().max().item() for dtype in DTYPES for each in _differences(triton_kernels, device, dtype))
    except torch.cuda.OutOfMemoryError:  # is a RuntimeError too
        raise
    # no compiler, half an installation, an old driver, a GPU that it does not know: each has been reported, each as another class
    except (TritonError, RuntimeError, OSError, ImportError, ValueError, AttributeError, TypeError, subprocess.CalledProcessError) as failure:
        logger.warning("Triton does not work here (%s); the motion module runs without it, slower.", str(failure).strip().partition("\n")[0])
        return False
    if not error < MAX_DIFFERENCE:
        logger.warning("Triton computes something else than torch on this GPU (off by %g); the motion module runs without it, slower.", error)
    return error < MAX_DIFFERENCE


def _differences(triton_kernels: ModuleType, device: torch.device, dtype: torch.dtype) -> Iterator[Tensor]:
    """Every kernel's result less torch's, for unit noise that nobody else's random numbers are taken for."""
    generator = torch.Generator(device).manual_seed(0)
    q, k, v = torch.randn(3, 3, 8, 16, 40, device=device, generator=generator).to(dtype)
    pictures = torch.randn(2, 32, 8, 8, device=device, generator=generator).to(dtype)
    tokens, row, shift = pictures.flatten(2).mT.contiguous(), torch.ones(32, device=device, dtype=dtype), pictures[:, :, 0, 0].contiguous()
    positions = tokens[0].contiguous()
    normed = functional.layer_norm(tokens, (32,), row, row, 1e-5)
    shifted = functional.silu(functional.group_norm(pictures + shift[:, :, None, None], 8, row, row, 1e-5))
    yield triton_kernels.attention(q, k, v) - plain_attention(q, k, v)
    yield triton_kernels.geglu(tokens) - plain_geglu(tokens)
    yield triton_kernels.norm(tokens, row, row, 1e-5) - normed
    yield triton_kernels.norm(tokens, row, row, 1e-5, positions) - (normed + positions)
    yield triton_kernels.group_norm(pictures, 8, row, row, 1e-5) - functional.group_norm(pictures, 8, row, row, 1e-5)
    yield triton_kernels.group_norm(pictures, 8, row, row, 1e-5, shift, True) - shifted


def _attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    if not works(q.device) or not q.stride(3) == k.stride(3) == v.stride(3) == 1:
        return plain_attention(q, k, v).contiguous()
    from . import triton_kernels

    with torch.cuda.device(q.device):  # Triton starts kernels on the current one
        return triton_kernels.attention(q, k, v)


def _register() -> torch._ops.OpOverloadPacket:
    """The operation; one that another copy of this file has registered in the process serves as well."""
    namespace, _, name = NAME.partition("::")
    if not hasattr(getattr(torch.ops, namespace), name):
        operation = torch.library.custom_op(NAME, _attention, mutates_args=(), schema="(Tensor q, Tensor k, Tensor v) -> Tensor")
        operation.register_fake(lambda q, k, v: q.new_empty(q.shape[0], q.shape[2], q.shape[1] * q.shape[3]))
    return getattr(getattr(torch.ops, namespace), name)


temporal_attention = _register()
"""`attention` as one operation, (n, f, heads * d) contiguous."""
