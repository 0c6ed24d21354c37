"""From latents to an mp4 in ComfyUI: one function for each way, the host's `decoding` probe times the VAE's decoder inside."""

import contextlib
import time
from fractions import Fraction
from pathlib import Path

import pack
import torch
from comfy_api.latest import InputImpl, Types
from probe import synchronize

FPS = 8


def _decoded(host, latents: torch.Tensor) -> tuple[torch.Tensor, dict[str, float]]:
    """Core's VAE Decode: IMAGE, and how long the device decoded and how long the rest (dtype, copy to memory, range) took."""
    host.decoding.clear()
    started = time.perf_counter()
    images = host.vae.decode(latents)
    synchronize(host.cuda)
    whole = (time.perf_counter() - started) * 1000
    vae = sum(host.decoding.device_ms())
    return images, {"vae": vae, "copy": whole - vae}


def _save_video(host, latents: torch.Tensor, path: Path) -> dict[str, float]:
    images, times = _decoded(host, latents)
    started = time.perf_counter()
    components = Types.VideoComponents(images=images, audio=None, frame_rate=Fraction(FPS))
    InputImpl.VideoFromComponents(components).save_to(str(path), format=Types.VideoContainer("mp4"), codec=Types.VideoCodec("h264"))
    return times | {"encode": (time.perf_counter() - started) * 1000}


def _combine_video(host, latents: torch.Tensor, path: Path) -> dict[str, float]:
    pack.load()
    from animatediff_turbo.video.encode import encode

    images, times = _decoded(host, latents)
    started = time.perf_counter()
    encode(images, path, FPS, "mp4")
    return times | {"encode": (time.perf_counter() - started) * 1000}


def _decode_and_combine(host, latents: torch.Tensor, path: Path) -> dict[str, float]:
    """What the node of this name does. Frames are encoded while others are decoded, so that only the whole is a time: what is beside the VAE is "encode"."""
    pack.load()
    from animatediff_turbo.nodes import _host
    from animatediff_turbo.video.encode import encode

    host.decoding.clear()
    started = time.perf_counter()
    with contextlib.closing(_host.decoded(host.vae, latents, path)) as frames:
        encode(frames, path, FPS, "mp4")
    whole = (time.perf_counter() - started) * 1000
    vae = sum(host.decoding.device_ms())
    return {"vae": vae, "copy": 0.0, "encode": whole - vae}


TAILS = {"save_video": _save_video, "combine_video": _combine_video, "best": _decode_and_combine}
"""By name; "best" is the fastest that this checkout has."""
NAMES = {"save_video": "VAE Decode, Save Video", "combine_video": "VAE Decode, Combine Video", "best": "Decode and Combine"}
