"""From frames, and from latents, to bytes on disk: python benchmarks/tail.py --vhs FOLDER

This pack beside ComfyUI's Create Video + Save Video and, with --vhs, a checkout of github.com/Kosinkadink/ComfyUI-VideoHelperSuite (it needs an ffmpeg:
`pip install imageio-ffmpeg opencv-python-headless`). All in one process, interleaved, on the CPU. Needs a ComfyUI (COMFYUI_PATH or ~/comfy/ComfyUI).
Writes benchmarks/TAIL.md.
"""

import argparse
import asyncio
import bisect
import gc
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import comfy_start
import facts
import pack
from stats import interleaved, ratio, spread

FPS, DECIBELS = 8, 0.3
"""Frames per second, and how far below a contestant's PSNR this pack's may be where both are compared."""
LONG, SHORT = 256, 16
"""Frames of the clips whose memory is measured."""


@dataclass(frozen=True)
class Way:
    """One contestant: writes its frames (or latents) to a new file, whose path it returns. against: the one that it is compared with."""

    name: str
    write: Callable[[], Path]
    against: str = ""


@dataclass(frozen=True)
class Found:
    """What came of a way: milliseconds of every round, and its file's distance from the frames and size."""

    ms: list[float]
    psnr: float
    size: int


def main() -> None:
    """Measures, and writes the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--comfyui", type=Path, help="ComfyUI checkout; COMFYUI_PATH or ~/comfy/ComfyUI without")
    parser.add_argument("--vhs", type=Path, help="ComfyUI-VideoHelperSuite checkout; its rows are left out without")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--results", type=Path, default=Path(__file__).with_name("TAIL.md"))
    parser.add_argument("--memory", nargs=2, metavar=("WAY", "FRAMES"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    comfyui = pack.find_comfyui(options.comfyui)
    if comfyui is None:
        raise SystemExit("There is no ComfyUI; say where with --comfyui FOLDER.")
    with tempfile.TemporaryDirectory() as base:
        for folder in ("output", "temp", "custom_nodes"):
            (Path(base) / folder).mkdir()
        comfy_start.start(comfyui, Path(base), ["--cpu"], [])
        pack.load()
        if options.vhs:
            load_vhs(options.vhs)
        if options.memory:
            memory(options.memory[0], int(options.memory[1]))
            return
        sections = [written(options), node_times(max(1, options.rounds // 3)), node_memory(options)]
    head = (
        f"# From frames to bytes on disk\n\n`{command(options)}`: {facts.processor()}; ComfyUI {comfy_version()}"
        f"{f', VideoHelperSuite {facts.commit(options.vhs)}' if options.vhs else ''}, {facts.versions()}. CPU alone, one thread for torch, shared with other"
        f" programs; {options.rounds} rounds, all ways interleaved, after two that are not counted.\n"
    )
    options.results.write_text("\n".join([head, *sections]), encoding="utf-8")


def load_vhs(folder: Path) -> None:
    """VideoHelperSuite's nodes; they look for a running server when they are imported."""
    import execution
    import server

    import nodes

    async def load() -> bool:
        prompt_server = server.PromptServer(asyncio.get_running_loop())
        execution.PromptQueue(prompt_server)
        return await nodes.load_custom_node(str(folder.resolve()))

    if not asyncio.run(load()):
        raise ImportError(f"{folder} was not loaded as a node pack; its traceback is above.")


def command(options: argparse.Namespace) -> str:
    """As it was started."""
    return "python benchmarks/tail.py" + (" --vhs FOLDER" if options.vhs else "") + (f" --rounds {options.rounds}" if options.rounds != 15 else "")


def comfy_version() -> str:
    """Of the ComfyUI in this process."""
    import comfyui_version

    return comfyui_version.__version__


def tiny_clip():
    """What the tiny model in this pack shows, (16, 128, 128, 3) float."""
    from animatediff_turbo.headless.pipeline import Request
    from animatediff_turbo.headless.render import Models, load

    return load(Models(device="cpu"))(Request("a red circle moving right on a black background", "", 128, 128, 16, 4, 1.0, 3))


def psnr(path: Path, frames) -> float:
    """Decibels between a file and the float frames it was made of."""
    from animatediff_turbo.video.decode import decode

    return -10 * float((decode(path).frames - frames).square().mean().log10())


def ours(frames, quality: float) -> Path:
    """Combine Video's way."""
    import folder_paths

    from animatediff_turbo.video.encode import encode

    return encode(frames, Path(folder_paths.get_output_directory()) / "ours.mp4", FPS, "mp4", quality).path


def core(frames) -> Path:
    """Create Video and Save Video's way."""
    import folder_paths
    from comfy_api.latest import InputImpl, Types

    path = Path(folder_paths.get_output_directory()) / "core.mp4"
    video = InputImpl.VideoFromComponents(Types.VideoComponents(images=frames, audio=None, frame_rate=Fraction(FPS)))
    video.save_to(str(path), format=Types.VideoContainer("mp4"), codec=Types.VideoCodec("h264"))
    return path


def vhs(frames, png: bool) -> Path:
    """Video Combine with video/h264-mp4 as it comes: crf 19, a PNG of the first frame beside it unless that is switched off."""
    import nodes

    workflow = {} if png else {"extra_pnginfo": {"workflow": {"extra": {"VHS_MetadataImage": False}}}}
    result = nodes.NODE_CLASS_MAPPINGS["VHS_VideoCombine"]().combine_video(
        FPS, 0, images=frames, filename_prefix="vhs", format="video/h264-mp4", pix_fmt="yuv420p", crf=19, save_metadata=True, trim_to_audio=False, **workflow
    )
    return Path(result["result"][0][1][-1])


def matched(frames, wanted: float) -> int:
    """The lowest quality whose PSNR is at most DECIBELS below."""
    return bisect.bisect_left(range(101), wanted - DECIBELS, key=lambda quality: psnr(ours(frames, quality), frames))


def measured(ways: list[Way], rounds: int) -> dict[str, list[float]]:
    """Milliseconds of each way in each round."""
    times: dict[str, list[float]] = {way.name: [] for way in ways}
    by_name = {way.name: way for way in ways}
    for number, name in enumerate(interleaved(list(by_name), rounds + 2)):
        started = time.perf_counter()
        path = by_name[name].write()
        elapsed = (time.perf_counter() - started) * 1000
        path.unlink()
        if number >= 2 * len(ways):
            times[name].append(elapsed)
    return times


def written(options: argparse.Namespace) -> str:
    """The tables of frames to a file."""
    import torch
    from nature import nature

    torch.set_num_threads(1)
    clips = {"moving textures, 512x512": nature(512, 16), "moving textures, 256x256": nature(256, 16), "tiny model, 128x128": tiny_clip()}
    text = (
        f"16 frames; H.264 everywhere. This pack at its default quality, and at the one whose PSNR is at most {DECIBELS} dB below the contestant's: the ratios"
        " are between those two. VideoHelperSuite also writes the first frame as PNG unless a setting of the workflow says no."
    )
    lines = ["## Float frames to an mp4\n", text, ""]
    for title, frames in clips.items():
        others = [Way("Create Video + Save Video", lambda frames=frames: core(frames))]
        if options.vhs:
            others += [Way("Video Combine (VHS)", lambda frames=frames: vhs(frames, True)), Way("Video Combine (VHS), no PNG", lambda frames=frames: vhs(frames, False))]
        ways = [Way("Combine Video, quality 80", lambda frames=frames: ours(frames, 80))]
        for other in others:
            quality = matched(frames, psnr(other.write(), frames))
            ways += [other, Way(f"Combine Video, quality {quality}, for {other.name}", lambda frames=frames, quality=quality: ours(frames, quality), other.name)]
        times = measured(ways, options.rounds)
        found = {way.name: Found(times[way.name], psnr(path := way.write(), frames), path.stat().st_size) for way in ways}
        lines += [f"### {title}\n", "| way | ms, median (p10-p90) | times faster (95 %) | PSNR, dB | bytes |", "|---|---|---|---|---|"]
        lines += [row(way, found) for way in ways] + [""]
    return "\n".join(lines)


def row(way: Way, found: dict[str, Found]) -> str:
    """One line of a table."""
    mine = found[way.name]
    middle, faster, size = spread(mine.ms), "", f"{mine.size}"
    if way.against:
        middle_ratio, low, high = ratio(found[way.against].ms, mine.ms)
        faster, size = f"**{middle_ratio:.2f}** ({low:.2f}-{high:.2f})", f"{mine.size} ({mine.size / found[way.against].size:.2f}x)"
    return f"| {way.name} | {middle.median:.0f} ({middle.p10:.0f}-{middle.p90:.0f}) | {faster} | {mine.psnr:.2f} | {size} |"


def node_ways(frames: int) -> dict[str, Callable[[], Path]]:
    """Ways from latents to an mp4 through the tiny model's VAE, at 128x128."""
    import torch

    import nodes
    from animatediff_turbo.nodes import _host, tail, video

    torch.set_num_threads(1)
    vae = _host.load_tiny().vae
    latent = {"samples": torch.randn(frames, 4, 16, 16, generator=torch.Generator().manual_seed(0))}
    common = {"fps": float(FPS), "format": "mp4", "quality": 80, "pingpong": False, "loop_count": 0, "filename_prefix": "node", "save": True}

    def one() -> Path:
        return Path(tail.DecodeAndCombine.execute(latent, vae, **common).result[1])

    def two() -> Path:
        (images,) = nodes.VAEDecode().decode(vae, latent)
        return Path(video.CombineVideo.execute(images, **common).result[1])

    def cores() -> Path:
        return core(nodes.VAEDecode().decode(vae, latent)[0])

    return {"Decode and Combine": one, "VAE Decode, Combine Video": two, "VAE Decode, Create Video, Save Video": cores}


def node_times(rounds: int) -> str:
    """The table of latents to a file."""
    import torch

    with torch.inference_mode():
        times = measured([Way(name, write) for name, write in node_ways(SHORT).items()], rounds)
    text = f"{SHORT} frames of 128x128 through the tiny model's VAE, at quality 80 and core's own, {rounds} rounds. \"times faster\" is Decode and Combine against that row."
    lines = ["## Latents to an mp4\n", f"{text}\n", "| way | ms, median (p10-p90) | times faster (95 %) |", "|---|---|---|"]
    for name, ms in times.items():
        middle, (faster, low, high) = spread(ms), ratio(ms, times["Decode and Combine"])
        lines.append(f"| {name} | {middle.median:.0f} ({middle.p10:.0f}-{middle.p90:.0f}) | {faster:.2f} ({low:.2f}-{high:.2f}) |")
    return "\n".join([*lines, ""])


def memory(name: str, frames: int) -> None:
    """Prints how many MiB a way's peak lies above what the process held before (Linux)."""
    import torch

    with torch.inference_mode():
        write = node_ways(frames)[name]
        node_ways(1)[name]()  # what is made once
        gc.collect()
        facts.forget_peak()  # what it held before
        before = facts.peak()
        write()
        print(f"{facts.peak() - before:.0f}")


def node_memory(options: argparse.Namespace) -> str:
    """The table of peaks, each from a process of its own."""
    text = (
        "The same, 128x128: the peak of the process's memory above what it held before, MiB, in a process of its own, once each. Core's VAE Decode gives the VAE as many"
        " frames at once as memory allows, which is most of the difference."
    )
    lines = ["## Peak memory beside the loaded model\n", f"{text}\n", f"| way | {SHORT} frames | {LONG} frames |", "|---|---|---|"]
    for name in ("Decode and Combine", "VAE Decode, Combine Video"):
        cells = []
        for frames in (SHORT, LONG):
            asked = [sys.executable, __file__, *(["--comfyui", str(options.comfyui)] if options.comfyui else []), "--memory", name, str(frames)]
            cells.append(subprocess.run(asked, capture_output=True, text=True, check=True, env=os.environ).stdout.splitlines()[-1])
        lines.append(f"| {name} | {cells[0]} | {cells[1]} |")
    return "\n".join([*lines, ""])


if __name__ == "__main__":
    main()
