"""Every kernel of motion_modules/triton_kernels.py and the projections beside torch's own operations, and motion modules: python benchmarks/kernels.py

At the shapes of an evaluation of 2x16 frames at 512x512. Medians of milliseconds on the GPU, of the processor's milliseconds for starting the same, and
errors against float64, all on the same inputs. Needs an NVIDIA GPU and Triton; writes the section Kernels of benchmarks/RESULTS.md.
"""

import argparse
import functools
import sys
from collections.abc import Callable
from pathlib import Path

import facts
import pack
import sections
import torch
from items import Bench, Table
from torch.nn import functional

ROOT = Path(__file__).resolve().parents[1]
FRAMES, CONDS = 16, 2
LEVELS = ((320, 64), (640, 32), (1280, 16), (1280, 8))
Case = tuple[Callable[[], torch.Tensor], Callable[[], torch.Tensor], torch.Tensor]
"""torch's way, the kernel's, and what is right."""
NORMS = ((320, 64), (960, 64), (640, 32), (1280, 32), (1280, 16), (2560, 16), (1280, 8))


def relative(found: torch.Tensor, right: torch.Tensor) -> str:
    """Relative L2 distance."""
    return f"{float((found.double() - right).norm() / right.norm()):.1e}"


def attention(bench: Bench, dtype: torch.dtype, channels: int, side: int) -> Case:
    """Temporal attention on views of one product, as the fused form makes them."""
    from animatediff_turbo.motion_modules import kernels, triton_kernels

    q, k, v = bench.random(CONDS * side * side, FRAMES, 3, 8, channels // 8, dtype=dtype).permute(2, 0, 3, 1, 4)
    parts = zip(q.split(512), k.split(512), v.split(512), strict=True)
    right = torch.cat([kernels.plain_attention(*(each.double() for each in part)) for part in parts])
    return lambda: kernels.plain_attention(q, k, v), lambda: triton_kernels.attention(q, k, v), right


def layer_norm(bench: Bench, dtype: torch.dtype, channels: int, side: int, placed: bool = False) -> Case:
    """LayerNorm of all tokens; placed: and positions on top."""
    from animatediff_turbo.motion_modules import triton_kernels

    x, positions = bench.random(CONDS * side * side, FRAMES, channels, dtype=dtype), bench.random(FRAMES, channels, dtype=dtype) * placed
    weight, bias = bench.random(2, channels, dtype=dtype)
    right = functional.layer_norm(x.double(), (channels,), weight.double(), bias.double()) + positions
    if placed:
        return lambda: functional.layer_norm(x, (channels,), weight, bias) + positions, lambda: triton_kernels.norm(x, weight, bias, 1e-5, positions), right
    return lambda: functional.layer_norm(x, (channels,), weight, bias), lambda: triton_kernels.norm(x, weight, bias, 1e-5), right


def positioned_norm(bench: Bench, dtype: torch.dtype, channels: int, side: int) -> Case:
    """LayerNorm and positions."""
    return layer_norm(bench, dtype, channels, side, True)


def geglu(bench: Bench, dtype: torch.dtype, channels: int, side: int) -> Case:
    """Of a feed-forward layer."""
    from animatediff_turbo.motion_modules import triton_kernels

    x = bench.random(CONDS * side * side, FRAMES, 8 * channels, dtype=dtype)

    def plain(x: torch.Tensor = x) -> torch.Tensor:
        value, gate = x.chunk(2, -1)
        return value * functional.gelu(gate)

    return plain, lambda: triton_kernels.geglu(x), plain(x.double())


def group_norm(bench: Bench, dtype: torch.dtype, channels: int, side: int, whole: bool = False) -> Case:
    """GroupNorm of pictures; whole: with the shift before it and SiLU after it, as a ResBlock has them."""
    from animatediff_turbo.motion_modules import triton_kernels

    x, shift = bench.random(CONDS * FRAMES, channels, side, side, dtype=dtype) + 1, bench.random(CONDS * FRAMES, channels, dtype=dtype)
    weight, bias = bench.random(2, channels, dtype=dtype)

    def plain(x: torch.Tensor = x, weight: torch.Tensor = weight, bias: torch.Tensor = bias) -> torch.Tensor:
        if not whole:
            return functional.group_norm(x, 32, weight, bias, 1e-5)
        return functional.silu(functional.group_norm(x + shift[:, :, None, None], 32, weight, bias, 1e-5))

    given = (shift, True) if whole else ()
    return plain, lambda: triton_kernels.group_norm(x, 32, weight, bias, 1e-5, *given), plain(x.double(), weight.double(), bias.double())


def shifted_norm(bench: Bench, dtype: torch.dtype, channels: int, side: int) -> Case:
    """Shift, GroupNorm and SiLU."""
    return group_norm(bench, dtype, channels, side, True)


def tokens_in(bench: Bench, dtype: torch.dtype, channels: int, side: int) -> Case:
    """From pictures to sequences: moved and multiplied, or moved by the product."""
    from animatediff_turbo.motion_modules import layers

    x, weight, bias = _projection(bench, dtype, (CONDS * FRAMES, channels, side * side), channels)

    def plain(x: torch.Tensor = x, weight: torch.Tensor = weight, bias: torch.Tensor = bias) -> torch.Tensor:
        return functional.linear(x.permute(2, 0, 1).contiguous(), weight, bias)

    return plain, lambda: layers.tokens_in(x, weight, bias), plain(x.double(), weight.double(), bias.double())


def tokens_out(bench: Bench, dtype: torch.dtype, channels: int, side: int) -> Case:
    """The way back."""
    from animatediff_turbo.motion_modules import layers

    x, weight, bias = _projection(bench, dtype, (side * side, CONDS * FRAMES, channels), channels)

    def plain(x: torch.Tensor = x, weight: torch.Tensor = weight, bias: torch.Tensor = bias) -> torch.Tensor:
        return functional.linear(x, weight, bias).permute(1, 2, 0).contiguous()

    return plain, lambda: layers.tokens_out(x, weight, bias), plain(x.double(), weight.double(), bias.double())


def _projection(bench: Bench, dtype: torch.dtype, shape: tuple[int, int, int], channels: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    weight = bench.random(channels, channels, dtype=dtype) / channels**0.5
    return bench.random(*shape, dtype=dtype), weight, bench.random(channels, dtype=dtype)


CASES = {
    "projection into sequences": (tokens_in, LEVELS), "projection out of them": (tokens_out, LEVELS),
    "temporal attention": (attention, LEVELS), "LayerNorm and positions": (positioned_norm, LEVELS), "LayerNorm": (layer_norm, LEVELS),
    "GEGLU": (geglu, LEVELS), "GroupNorm": (group_norm, NORMS), "shift, GroupNorm, SiLU": (shifted_norm, NORMS),
}  # fmt: skip


def kernels(bench: Bench, dtype: torch.dtype) -> Table:
    """Every kernel at every shape."""
    table = bench.table("kernel", "shape", "plain, ms", "ours, ms", "ratio", "starting the plain, ms", "starting ours, ms", "plain error", "our error")
    for name, (case, shapes) in CASES.items():
        for channels, side in shapes:
            *ways, right = case(bench, dtype, channels, side)
            plain, kernel = map(bench.timing, ways)
            times = f"{plain.device:.3f}", f"{kernel.device:.3f}", f"{plain.device / kernel.device:.1f}", f"{plain.launch:.3f}", f"{kernel.launch:.3f}"
            table.add(name, f"{channels} channels, {side}x{side}", *times, *(relative(way(), right) for way in ways))
            del ways, right
            torch.cuda.empty_cache()
    return table


def modules(bench: Bench, dtype: torch.dtype) -> Table:
    """A whole motion module: the plain form, which has the kernel of attention too, and the fused one."""
    sys.path.insert(0, str(ROOT / "tests"))
    import stacks

    from animatediff_turbo.motion_modules import convert
    from animatediff_turbo.motion_modules.config import Layout
    from animatediff_turbo.motion_modules.layers import TemporalTransformer

    timed = "plain form, ms", "fused form, ms", "ratio", "starting the plain, ms", "starting the fused, ms"
    table = bench.table("shape", *timed, "plain form's error", "fused form's error")
    for channels, side in LEVELS:
        weights = stacks.motion_weights(Layout((channels,) * 4, 1, True), only="mid_block.", dtype=dtype)
        forms = []
        for fused in (False, True):
            tensors = convert.fuse(weights) if fused else weights
            forms.append(TemporalTransformer(channels, fused=fused, device="meta").eval())
            forms[-1].load_state_dict({name.removeprefix("mid_block.motion_modules.0."): tensor for name, tensor in tensors.items()}, assign=True)
            forms[-1].to(bench.device)
        x = bench.random(CONDS * FRAMES, channels, side, side, dtype=dtype)
        times = [bench.timing(functools.partial(form, x, FRAMES)) for form in forms]
        few = x[:, :, :4].contiguous()  # in float64 all of it would take too long
        branches = [form.branch(few, FRAMES) for form in forms]
        right = forms[0].double().branch(few.double(), FRAMES)
        errors = [relative(branch, right) for branch in branches]
        table.add(f"{channels} channels, {side}x{side}", *(f"{time.device:.3f}" for time in times), f"{times[0].device / times[1].device:.2f}", *(f"{time.launch:.3f}" for time in times), *errors)
    return table


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, default=Path(__file__).with_name("RESULTS.md"))
    given = parser.parse_args()
    pack.load()
    from animatediff_turbo.motion_modules.kernels import works

    if not torch.cuda.is_available() or not works(torch.device("cuda", 0)):
        raise SystemExit("There is no NVIDIA GPU on which Triton works.")
    bench = Bench(True, float("inf"), Path("."))
    torch.manual_seed(0)
    body = [f"`python benchmarks/kernels.py`; GPU ({facts.QUERY}): {facts.gpu()}; {facts.versions()}.", ""]
    with torch.inference_mode():
        for dtype in (torch.float16, torch.bfloat16):
            for title, part in (("Kernels", kernels), ("A motion module", modules)):
                lines = [f"### {title}, {str(dtype).removeprefix('torch.')}", "", *part(bench, dtype).markdown(), ""]
                sys.stdout.write("\n".join(lines) + "\n")
                sys.stdout.flush()
                body += lines
                sections.write(given.results, "Kernels", "\n".join(body))


if __name__ == "__main__":
    main()
