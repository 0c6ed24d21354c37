"""Files to frames: any container and codec that PyAV reads, at the rate that is asked for, one decoded frame in memory beside those that are kept."""

import contextlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import torch
from av.container import InputContainer
from av.video.reformatter import VideoReformatter
from torch import Tensor

from .colours import upright
from .errors import VideoError
from .part import Part, asked, taken
from .reading import UNTIMED, MistimedError, opened, video_stream
from .sound import read_sound
from .times import Clock, shown_frames, watched

CHUNK = 16
"""Frames that are turned into float at once."""


@dataclass(frozen=True)
class Clip:
    """What a file shows.

    frames: (f, h, w, 3) float32, 0 to 1. fps: their rate. audio: ComfyUI's AUDIO for as long as they last, None for a silent file.
    """

    frames: Tensor
    fps: Fraction
    audio: dict[str, object] | None


def decode(
    path: str | Path, fps: float = 0.0, skip_seconds: float = 0.0, first_n_seconds: float = 0.0, max_frames: int = 0,
    watch: Callable[[float], None] = lambda share: None,
) -> Clip:
    """Reads a video file.

    fps: frames per second. For each moment the frame is taken that a player would show. 0 takes each frame of the file once, at their average rate.
    skip_seconds: are left out at the start; with fps 0 the clip starts with the frame that is shown then. first_n_seconds, max_frames: end the clip,
    whichever comes first; 0 is no limit. What lies outside of the part is not kept, and where the file has an index not decoded.
    watch: is called in this thread at every decoded frame and piece of sound, with the share of the pictures, 0 to 1, that has been read, 0 where nobody
    knows; what it raises comes through.
    Frames stand upright as a player shows them and become full range RGB by the matrix of their tag; what is not tagged is guessed as players do.
    Sound keeps its place: it is silent until it starts, and where it has gaps. Sound that cannot be decoded is a warning in the log.

    Raises ValueError for arguments out of range, VideoError when the file is missing, broken or no video, or ends before the clip starts.
    """
    path, part = Path(path), asked(fps, skip_seconds, first_n_seconds, max_frames)
    found = _pictures(path, part, watch)
    if not found.pictures:
        raise VideoError(f"{path} ends before {skip_seconds:g} s; use a smaller skip_seconds.")
    sizes = {picture.shape for picture in found.pictures}
    if len(sizes) > 1:
        raise VideoError(f"{path} changes its size while it plays, from {found.pictures[0].shape[1::-1]} on; convert it to one size first.")
    seconds = len(found.pictures) / found.rate
    return Clip(_floats(found.pictures), found.rate, read_sound(path, found.begin, seconds, watch))


@dataclass(frozen=True)
class _Pictures:
    """(h, w, 3) uint8 each, the same one again where it is shown again; their rate, and when the first is shown, seconds of the container's own clock."""

    pictures: list[np.ndarray]
    rate: Fraction
    begin: Fraction


def _pictures(path: Path, part: Part, watch: Callable[[float], None]) -> _Pictures:
    """The pictures of a part: from its key frame on, or from the first one where the file does not lead there; by decoding times where it has no others."""
    for start in {part.start: None, Fraction(0): None}:
        with contextlib.suppress(MistimedError), opened(path) as container:
            if container.format.name in UNTIMED:
                break
            return _read(path, container, part, watch, start)
    with opened(path) as container:
        return _read(path, container, part, watch, Fraction(0), decoding_times=True)


def _read(path: Path, container: InputContainer, part: Part, watch: Callable[[float], None], start: Fraction, decoding_times: bool = False) -> _Pictures:
    stream, reformatter = video_stream(container, path), VideoReformatter()
    clock = Clock(stream, decoding_times)
    if part.rate is None and clock.rate is None:
        raise VideoError(f"{path} does not say how many frames it has per second; set fps.")
    until = part.end or (Fraction(container.duration, av.time_base) if container.duration else None)
    first = last = None
    pictures = []
    for shown in taken(watched(shown_frames(container, stream, clock, start), until, watch), part):
        pictures.append(pictures[-1] if shown is last else upright(shown.frame, reformatter))
        first, last = first or shown, shown
    begin = clock.zero or Fraction(0)
    if part.rate is not None or first is None:
        return _Pictures(pictures, part.rate or Fraction(1), begin + part.start)
    seconds = last.end - first.start
    as_stated = abs(len(pictures) / clock.rate - seconds) <= 2 * clock.slack
    return _Pictures(pictures, clock.rate if as_stated else len(pictures) / seconds, begin + first.start)


@dataclass(frozen=True)
class Limits:
    """What a file may hold: pixels of a side, frames, pixels of all frames together, seconds of sound."""

    side: int
    frames: int
    pixels: int
    sound_seconds: float


@dataclass(frozen=True)
class Measure:
    """What a file holds: pixels across and down, and frames. over: which limit it breaks, in words; where it does, the rest was not decoded."""

    width: int
    height: int
    frames: int
    over: str = ""


def measure(path: str | Path, limits: Limits) -> Measure:
    """Decodes a whole file, pictures and sound, and keeps nothing; stops at the first limit that is broken.

    Raises VideoError when it is missing, broken or no video.
    """
    path = Path(path)
    with opened(path) as container:
        found = _measured(container, video_stream(container, path), limits)
        if not (found.frames or found.over):
            raise VideoError(f"{path} holds no pictures; choose a video.")
    if found.over:
        return found
    with opened(path) as container:
        heard = container.streams.audio and container.streams.audio[0].codec_context  # None where FFmpeg does not know the codec
        long = bool(heard) and _is_longer(container, limits.sound_seconds)
    return replace(found, over=f"more than {limits.sound_seconds:g} seconds of sound") if long else found


def _measured(container: InputContainer, stream: av.VideoStream, limits: Limits) -> Measure:
    context = stream.codec_context
    size, frames = (context.width, context.height), 0
    if max(size) > limits.side:
        return Measure(*size, frames, f"{size[0]}x{size[1]} pixels")
    for frame in container.decode(stream):
        frames += 1
        if frames > 1 and size != (frame.width, frame.height):
            return Measure(*size, frames, "frames of different sizes")
        size = frame.width, frame.height
        if max(size) > limits.side or frames > limits.frames or size[0] * size[1] * frames > limits.pixels:
            return Measure(*size, frames, f"{size[0]}x{size[1]} pixels, {frames} frames or more")
    return Measure(*size, frames)


def _is_longer(container: InputContainer, seconds: float) -> bool:
    heard = 0.0
    for frame in container.decode(audio=0):
        heard += frame.samples / frame.sample_rate
        if heard > seconds:
            return True
    return False


def _floats(pictures: list[np.ndarray]) -> Tensor:
    """(f, h, w, 3) of 0 to 1; the list is emptied on the way, so that no frame is held twice."""
    result = torch.empty(len(pictures), *pictures[0].shape)
    for start in range(0, len(result), CHUNK):
        part = pictures[start : start + CHUNK]
        result[start : start + len(part)] = torch.from_numpy(np.stack(part)) / 255
        pictures[start : start + len(part)] = [None] * len(part)
    return result
