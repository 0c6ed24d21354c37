"""A clip's latents to 8-bit frames through ComfyUI's own VAE object, a few at a time, so that a file can be written meanwhile."""

import copy
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import comfy.model_management
import comfy.sd
import comfy.utils
import torch

from ...video.pictures import check_finite, extremes, to_bytes

AT_ONCE = 4
"""Frames through the VAE on a graphics card: fewer leave a fast one idle between them, more keep the encoder waiting; where memory is short core makes
it fewer. A processor takes one: it has no time to gain from more (measured), and the encoder starts sooner."""


def at_once(vae: comfy.sd.VAE) -> int:
    """Frames that the VAE decodes at a time here."""
    device = getattr(vae, "device", None)
    return 1 if device is not None and device.type == "cpu" else AT_ONCE


def clip_latents(vae: comfy.sd.VAE, latent: dict) -> torch.Tensor:
    """The latents of a clip's frames, (f, c, h, w).

    Raises ValueError for a VAE or latents of another kind than SD1.5's: core would show the first frame of video latents alone.
    """
    if getattr(vae, "latent_dim", 2) != 2:
        raise ValueError("This VAE is for video or sound, not for single pictures; connect the VAE of an SD1.5 checkpoint.")
    samples = latent["samples"]
    if getattr(samples, "is_nested", False) or samples.ndim != 4:
        shape = "several latents in one" if getattr(samples, "is_nested", False) else f"{samples.ndim} dimensions, {tuple(samples.shape)}"
        raise ValueError(f"The latent has {shape}; a clip has (frames, channels, height, width). Use VAE Decode with the VAE of the model that made it.")
    channels = getattr(vae, "latent_channels", samples.shape[1])
    if samples.shape[1] != channels:
        raise ValueError(f"The latent has {samples.shape[1]} channels and this VAE decodes {channels}; connect the VAE of the model that made it.")
    return samples


def pixel_size(vae: comfy.sd.VAE, samples: torch.Tensor) -> tuple[int, int]:
    """Width and height of the frames in pixels."""
    scale = vae.spacial_compression_decode()
    return samples.shape[3] * scale, samples.shape[2] * scale


@dataclass(frozen=True)
class _Part:
    """Frames on their way: (n, h, w, c) uint8 and their (2, n) least and greatest values, all there when `ready` has happened (None: they are)."""

    first: int
    frames: torch.Tensor
    extremes: torch.Tensor
    ready: torch.cuda.Event | None


def decoded(vae: comfy.sd.VAE, samples: torch.Tensor, path: Path) -> Iterator[torch.Tensor]:
    """The frames, (h, w, c) uint8 on the CPU, in order: the pixels of VAE Decode and Combine Video, decoded as many at a time. (How many those are moves a
    VAE's floats by some 1e-7, and so a pixel here and there by one level of 255.)

    They become bytes where they were decoded and leave a graphics card as such, while it decodes the next ones. Memory holds two parts of `at_once` frames
    and what the reader keeps, never the clip. Shows core's progress bar; an interrupt comes through between the parts.

    Raises VideoError (about path) for a frame of NaN.
    """
    bar, count = comfy.utils.ProgressBar(len(samples)), at_once(vae)
    waiting = deque()
    for first in range(0, len(samples), count):
        comfy.model_management.throw_exception_if_processing_interrupted()
        part = _part(vae, samples[first : first + count], first)
        waiting.append(part)
        while len(waiting) > (part.ready is not None):  # the card has its next part before this thread waits for its last one
            yield from _frames(waiting.popleft(), path)
        bar.update_absolute(min(first + count, len(samples)))
    for part in waiting:
        yield from _frames(part, path)


def _part(vae: comfy.sd.VAE, samples: torch.Tensor, first: int) -> _Part:
    frames = _staying(vae).decode(samples)  # n h w c
    found, data = extremes(frames), to_bytes(frames).contiguous()
    if data.device.type != "cuda":
        return _Part(first, data.to("cpu"), found.to("cpu"), None)
    with torch.cuda.device(data.device):
        copies = [torch.empty(each.shape, dtype=each.dtype, pin_memory=True).copy_(each, non_blocking=True) for each in (data, found)]
        ready = torch.cuda.Event()
        ready.record()
    return _Part(first, *copies, ready)


def _staying(vae: comfy.sd.VAE) -> comfy.sd.VAE:
    """vae, on a graphics card a shallow copy of it that leaves its result there, as core's option --gpu-only does; the model in it is the same."""
    device = getattr(vae, "device", None)
    if device is None or device.type != "cuda" or not hasattr(vae, "output_device"):
        return vae
    result = copy.copy(vae)
    result.output_device = device
    return result


def _frames(part: _Part, path: Path) -> Iterator[torch.Tensor]:
    frames = part.frames
    if part.ready is not None:
        part.ready.synchronize()
        frames = frames.clone()  # pinned memory is scarce, and a reader may keep what it gets
    check_finite(part.extremes, part.first, path)
    yield from frames
