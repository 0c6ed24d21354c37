"""The checklist's items that need processes or threads of their own."""

import json
import os
import subprocess
import sys
import tempfile
import time
from fractions import Fraction

import av
import contestants
import numpy as np
from fleet import Failed, Worker
from items import Bench, Table
from scenarios import Scenario

GRAPH = """
import torch
x = torch.randn(8, 64, 64, 64, device="cuda", dtype=torch.float16)
kernel = torch.randn(64, 64, 3, 3, device="cuda", dtype=torch.float16) / 24
def network(x):
    for _ in range(8):
        x = torch.nn.functional.silu(torch.nn.functional.conv2d(x, kernel, padding=1)) + x
    q = x.flatten(2).transpose(1, 2)[:, None]
    return torch.nn.functional.scaled_dot_product_attention(q, q, q)
with torch.inference_mode():
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            expected = network(x)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        found = network(x)
    begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    graph.replay()
    begin.record()
    for _ in range(20):
        graph.replay()
    end.record()
    torch.cuda.synchronize()
    print(f"{torch.cuda.get_allocator_backend()}: works, largest difference {float((found - expected).abs().max()):.1e}, {begin.elapsed_time(end) / 20:.3f} ms")
"""
ALLOCATORS = ("backend:cudaMallocAsync", "backend:native", "expandable_segments:True")
PRESETS, THREADS = ("medium", "veryfast", "ultrafast"), (0, 1, 2, 4, 8, 16)
FRAMES, SIDE = 32, 512


def graphs(bench: Bench) -> Table:
    """ComfyUI's allocator is cudaMallocAsync, unless --fast asks for cuDNN's autotuning."""
    table = bench.table("PYTORCH_CUDA_ALLOC_CONF", "outcome")
    for setting in ALLOCATORS:
        done = subprocess.run(
            [sys.executable, "-c", GRAPH], env=os.environ | {"PYTORCH_CUDA_ALLOC_CONF": setting}, capture_output=True, text=True, timeout=max(bench.left(), 1), check=False
        )
        said = (done.stdout if done.returncode == 0 else done.stderr).strip().splitlines()
        table.add(setting, said[-1] if said else f"exit code {done.returncode}")
    return table


def clip(frames: int = FRAMES, side: int = SIDE) -> list[np.ndarray]:
    """Soft shapes that drift, with a little grain: (h, w, 3) uint8 each."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[0:side, 0:side] / side
    grain = rng.normal(0, 4, (side, side, 3))
    result = []
    for t in range(frames):
        waves = [np.sin(2 * np.pi * (a * x + b * y + t / 16)) for a, b in ((2, 1), (1, 3), (3, 2))]
        result.append((127 + 90 * np.stack(waves, -1) + np.roll(grain, t, 1)).clip(0, 255).astype(np.uint8))
    return result


def encoding(bench: Bench) -> Table:
    """By preset and threads (0: libx264 chooses), colour conversion within."""
    table = bench.table("preset", *(f"{threads} threads" for threads in THREADS))
    frames = clip() if bench.cuda else clip(4, 64)
    for preset in PRESETS:
        table.add(preset, *(_encode(frames, preset, threads, bench) for threads in THREADS))
    return table


def _encode(frames: list[np.ndarray], preset: str, threads: int, bench: Bench) -> float:
    times = []
    for _ in range(3):
        started = time.perf_counter()
        with av.open(str(bench.out / "clip.mp4"), "w") as container:
            height, width = frames[0].shape[:2]
            stream = container.add_stream("libx264", rate=Fraction(8), width=width, height=height, pix_fmt="yuv420p", options={"preset": preset})
            stream.codec_context.thread_count = threads
            for frame in frames:
                container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
            container.mux(stream.encode(None))
        times.append((time.perf_counter() - started) * 1000 / len(frames))
    return sorted(times)[1]


def compiling(bench: Bench) -> Table:
    """The first and the fourth evaluation of "ours, compiled" and "ours", both conds of 16 frames at 512 px, with inductor's loop reindexing off and on."""
    if bench.weights is None or bench.comfyui is None:
        raise ValueError("needs --weights and a ComfyUI")
    table = bench.table("contestant", "LOOP_REINDEXING_AFTER_FUSION", "first, s", "fourth, ms")
    scenario = Scenario("compile", 16, 1, 2.0, 512 if bench.cuda else 64, False)
    common = {"weights": str(bench.weights), "comfyui": str(bench.comfyui), "ade": "", "out": str(bench.out)}
    about = weights_of(bench)
    common |= {"size": about["size"], "dtype": about["dtype"], "device": bench.device}
    for name, setting in (("ours, stock flags", "0"), ("ours, compiled", "0"), ("ours, compiled", "1")):
        out = bench.out / f"loop-reindexing-{setting}"
        out.mkdir(exist_ok=True)
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as cache:  # what another run has compiled is no cold start
            environment = {"TORCHINDUCTOR_LOOP_REINDEXING_AFTER_FUSION": setting, "TORCHINDUCTOR_CACHE_DIR": cache, "TRITON_CACHE_DIR": cache}
            table.add(name, setting, *_first_and_fourth(Worker(contestants.ROWS[name], common | {"out": str(out)}, environment), scenario, bench))
    return table


def _first_and_fourth(worker: Worker, scenario: Scenario, bench: Bench) -> tuple[float | str, float | str]:
    try:
        worker.wait_ready(min(120, bench.left()))
        answers = [worker.ask({"do": "run", "scenario": scenario.fields()}, min(240, bench.left())) for _ in range(4)]
        return answers[0]["times"]["denoise"] / 1000, sum(answers[-1]["evaluation"])
    except Failed as failure:
        return str(failure), ""
    finally:
        worker.stop(2)


def weights_of(bench: Bench) -> dict:
    """What the weights' folder says of itself."""
    return json.loads((bench.weights / "unet.json").read_text())
