"""The checklist's items that one process measures."""

import torch
from items import Bench, Table
from safetensors.torch import load_file
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import conv2d, linear, scaled_dot_product_attention

import weights

LEVELS = ((320, 64), (640, 32), (1280, 16), (1280, 8))
"""Channels and latent side of the UNet's levels at 512 px."""
CONDS, FRAMES, HEADS = 2, 16, 8
BACKENDS = {"flash": SDPBackend.FLASH_ATTENTION, "cudnn": SDPBackend.CUDNN_ATTENTION, "efficient": SDPBackend.EFFICIENT_ATTENTION}


def _rate(flop: float, milliseconds: float | str) -> float | str:
    return flop / milliseconds / 1e9 if isinstance(milliseconds, float) else milliseconds


def products(bench: Bench) -> Table:
    """Tokens by the UNet's weights: attention's in and out, the gated feed-forward's two; and one that fits the device best."""
    table = bench.table("M", "K", "N", "float16", "bfloat16")
    sizes = [(bench.small(CONDS * FRAMES * side**2), channels, channels * times) for channels, side in LEVELS[:3] for times in (1, 3, 8)]
    sizes += [(sizes[0][0], 1280, 320), (bench.small(8192, 64),) * 3]
    for m, k, n in sizes:
        rates = []
        for dtype in (torch.float16, torch.bfloat16):
            x, weight = bench.random(m, k, dtype=dtype), bench.random(n, k, dtype=dtype)
            rates.append(_rate(2 * m * k * n, bench.attempt(lambda x=x, weight=weight: linear(x, weight))))
        table.add(m, k, n, *rates)
    x = bench.random(bench.small(2**29, 2**20))
    copied = bench.milliseconds(x.clone)
    table.add("copy", "", "", f"{2 * x.numel() * x.element_size() / copied / 1e9:.2f} TB/s", "")
    return table


def convolutions(bench: Bench) -> Table:
    """NCHW is what torch gives by itself, NHWC is channels_last for both operands."""
    table = bench.table("batch", "channels", "side", "NCHW", "NHWC", "NHWC kernel, NCHW input")
    shapes = [(CONDS * FRAMES, *level) for level in LEVELS[:3]] + [(8, 512, 128), (4, 256, 512), (4, 128, 512)]
    for n, c, side in shapes:
        side = side if bench.cuda else 4
        x, weight = bench.random(n, c, side, side), bench.random(c, c, 3, 3) / c
        last = (x.to(memory_format=torch.channels_last), weight.to(memory_format=torch.channels_last))
        pairs = ((x, weight), last, (x, last[1]))
        flop = 2 * n * c * c * 9 * side * side
        table.add(n, c, side, *(_rate(flop, bench.attempt(lambda pair=pair: conv2d(*pair, padding=1))) for pair in pairs))
    return table


def spatial_attention(bench: Bench) -> Table:
    """All frames of both conds; head widths 40, 80, 160."""
    table = bench.table("tokens", "head width", *BACKENDS, "torch's choice")
    for channels, side in LEVELS[:3]:
        tokens, width = side**2 if bench.cuda else 64, channels // HEADS
        q, k, v = (bench.random(bench.small(CONDS * FRAMES), HEADS, tokens, width) for _ in range(3))
        times = []
        for backend in BACKENDS.values():
            with sdpa_kernel(backend):
                times.append(bench.attempt(lambda q=q, k=k, v=v: scaled_dot_product_attention(q, k, v)))
        table.add(tokens, width, *times, bench.attempt(lambda q=q, k=k, v=v: scaled_dot_product_attention(q, k, v)))
    return table


def temporal_attention(bench: Bench) -> Table:
    """Over 16 frames at every pixel of both conds: on views of (b f p 3 heads d), and on contiguous (b p) heads f d."""
    table = bench.table("pixels", "head width", "views", *(f"{name}, views" for name in BACKENDS), "contiguous")
    for channels, side in LEVELS:
        pixels, width = bench.small(side**2, 16), channels // HEADS
        joined = bench.random(CONDS, FRAMES, pixels, 3, HEADS, width)
        # b f p 3 heads d -> 3 b p heads f d
        views = [[joined[b, :, :, i].permute(1, 2, 0, 3) for i in range(3)] for b in range(CONDS)]
        whole = [torch.cat([views[b][i] for b in range(CONDS)]).contiguous() for i in range(3)]

        def over_views(views=views) -> None:
            for q, k, v in views:
                scaled_dot_product_attention(q, k, v)

        times = [bench.attempt(over_views)]
        for backend in BACKENDS.values():
            with sdpa_kernel(backend):
                times.append(bench.attempt(over_views))
        table.add(pixels, width, *times, bench.attempt(lambda whole=whole: scaled_dot_product_attention(*whole)))
    return table


def vae(bench: Bench) -> Table:
    """diffusers' decoder in bfloat16, eager, with random weights or those of --weights."""
    table = bench.table("frames at once", "NCHW", "NHWC")
    network = weights.vae()
    file = bench.weights / "vae.safetensors" if bench.weights else None
    if file and file.is_file():
        network.load_state_dict(load_file(file), assign=True)
    else:
        shapes = {name: tensor.shape for name, tensor in network.state_dict().items()}
        network.load_state_dict(weights.random(shapes, torch.Generator(bench.device).manual_seed(0), torch.float32), assign=True)
    dtype = torch.bfloat16 if bench.cuda else torch.float32
    network = network.to(bench.device, dtype).eval()
    side = 64 if bench.cuda else 4
    times: dict[int, list[float | str]] = {frames: [] for frames in ((1, 2, 4, 8, 16) if bench.cuda else (1, 2))}
    for layout in (torch.contiguous_format, torch.channels_last):
        network = network.to(memory_format=layout)
        for frames, found in times.items():
            latents = bench.random(frames, 4, side, side, dtype=dtype).to(memory_format=layout)
            whole = bench.attempt(lambda network=network, latents=latents: network.decode(latents).sample)
            found.append(whole / frames if isinstance(whole, float) else whole)
    for frames, found in times.items():
        table.add(frames, *found)
    return table


def fp8(bench: Bench) -> Table:
    """torch._scaled_mm with one scale for each tensor, beside float16."""
    table = bench.table("M", "K", "N", "float8", "float16")
    if not bench.cuda:
        raise RuntimeError("fp8 products are for GPUs")
    one = torch.ones((), device="cuda")
    for channels, side in LEVELS[:3]:
        m = CONDS * FRAMES * side**2
        for n in (3 * channels, 8 * channels):
            x, weight = bench.random(m, channels), bench.random(n, channels)
            x8, weight8 = x.to(torch.float8_e4m3fn), weight.to(torch.float8_e4m3fn).t()
            fast = bench.attempt(lambda x8=x8, weight8=weight8: torch._scaled_mm(x8, weight8, one, one, out_dtype=torch.float16, use_fast_accum=True))
            plain = bench.attempt(lambda x=x, weight=weight: linear(x, weight))
            table.add(m, channels, n, _rate(2 * m * channels * n, fast), _rate(2 * m * channels * n, plain))
    return table
