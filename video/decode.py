"""Files to frames: any container and codec that PyAV reads, at the rate that is asked for, one decoded frame in memory beside those that are kept."""

import contextlib
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import torch
from av.container import InputContainer
from av.video.reformatter import ColorRange, Colorspace, VideoReformatter
from torch import Tensor

from .errors import VideoError

CHUNK = 16
"""Frames that are turned into float at once."""
UNTAGGED, HIGH_DEFINITION = 2, 720
"""ITU-T H.273's code for colours that a file says nothing of, and the height from which players take them for BT.709."""
ROUNDING = Fraction(1, 1000)
"""Seconds by which containers round when a frame starts; Matroska and webm count milliseconds."""
NEVER = 10_000.0
"""Frames per second; above it a file's own rate is a mistake of its writer."""


@dataclass(frozen=True)
class Clip:
    """What a file shows.

    frames: (f, h, w, 3) float32, 0 to 1. fps: their rate. audio: ComfyUI's AUDIO for as long as they last, None for a silent file.
    """

    frames: Tensor
    fps: Fraction
    audio: dict[str, object] | None


def decode(path: str | Path, fps: float = 0.0, skip_seconds: float = 0.0, first_n_seconds: float = 0.0, max_frames: int = 0) -> Clip:
    """Reads a video file.

    fps: frames per second; 0 keeps the file's own. Another rate takes, for each moment, the frame that a player would show.
    skip_seconds: are left out at the start. first_n_seconds, max_frames: end the clip, whichever comes first; 0 is no limit.
    Frames stand upright as a player shows them; BT.709 and BT.601, as tagged, become full range RGB, and what is not tagged is guessed as players do.

    Raises ValueError for arguments out of range, VideoError when the file is missing, broken or no video, or ends before the clip starts.
    """
    path = Path(path)
    for name, value in (("fps", fps), ("skip_seconds", skip_seconds), ("first_n_seconds", first_n_seconds), ("max_frames", max_frames)):
        if not (math.isfinite(value) and value >= 0):
            raise ValueError(f"{name} is {value}; use 0 or more.")
    with _opened(path) as container:
        rate = Fraction(fps).limit_denominator(10_000) if fps else _own_rate(path, container)
        end = min(first_n_seconds or math.inf, max_frames / rate if max_frames else math.inf)
        pictures = list(_at_rate(_pictures(path, container), rate, Fraction(skip_seconds), end))
    if not pictures:
        raise VideoError(f"{path} ends before {skip_seconds:g} s; use a smaller skip_seconds.")
    sizes = {picture.shape for picture in pictures}
    if len(sizes) > 1:
        raise VideoError(f"{path} changes its size while it plays, from {pictures[0].shape[1::-1]} on; convert it to one size first.")
    return Clip(_floats(pictures), rate, _sound(path, skip_seconds, len(pictures) / rate))


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
    with _opened(path) as container:
        found = _measured(container, limits)
        if not (found.frames or found.over):
            raise VideoError(f"{path} holds no pictures; choose a video.")
    if found.over:
        return found
    with _opened(path) as container:
        long = bool(container.streams.audio) and _is_longer(container, limits.sound_seconds)
    return replace(found, over=f"more than {limits.sound_seconds:g} seconds of sound") if long else found


def _measured(container: InputContainer, limits: Limits) -> Measure:
    context = container.streams.video[0].codec_context
    size, frames = (context.width, context.height), 0
    if max(size) > limits.side:
        return Measure(*size, frames, f"{size[0]}x{size[1]} pixels")
    for frame in container.decode(video=0):
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


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[InputContainer]:
    if not path.is_file():
        raise VideoError(f"There is no video at {path}; choose another file.")
    with explain_reading(path), av.open(str(path), metadata_errors="replace") as container:
        if not container.streams.video:
            raise VideoError(f"{path} holds no pictures; choose a video.")
        container.streams.video[0].thread_type = "AUTO"
        yield container


@contextlib.contextmanager
def explain_reading(path: Path) -> Iterator[None]:
    """Turn an error of the system or of a codec inside the block into a VideoError about `path`."""
    try:
        yield
    except (OSError, av.error.FFmpegError) as error:
        if path.suffix.lower() == ".webp" and isinstance(error, av.error.InvalidDataError):
            raise VideoError(f"{path} could not be read: FFmpeg does not know animated WebP; write the clip as mp4, or choose another file.") from error
        reason = (error.strerror or str(error)).lower()
        raise VideoError(f"{path} could not be read ({reason}); it is broken or no video, choose another file.") from error


def _own_rate(path: Path, container: InputContainer) -> Fraction:
    stream = container.streams.video[0]
    for rate in (stream.average_rate, stream.guessed_rate, stream.base_rate):
        if rate and rate < NEVER:
            return Fraction(rate)
    raise VideoError(f"{path} does not say how many frames it has per second; set fps.")


def _pictures(path: Path, container: InputContainer) -> Iterator[tuple[Fraction, Fraction, np.ndarray]]:
    """Every frame as (start, length in seconds, (h, w, 3) uint8), from time 0 on."""
    stream, reformatter, first = container.streams.video[0], VideoReformatter(), None
    usual = 1 / Fraction(stream.average_rate or stream.guessed_rate or 25)
    time = Fraction(0)
    for frame in container.decode(stream):
        if frame.pts is not None:
            now = frame.pts * Fraction(frame.time_base)
            first = now if first is None else first
            time = now - first
        length = frame.duration * Fraction(frame.time_base) if frame.duration else usual
        yield time, length, _upright(frame, reformatter)
        time += length


def _upright(frame: av.VideoFrame, reformatter: VideoReformatter) -> np.ndarray:
    tag = int(frame.colorspace)
    high = tag == UNTAGGED and frame.height >= HIGH_DEFINITION
    matrix = Colorspace.ITU709 if tag == Colorspace.ITU709.value or high else Colorspace.ITU601
    coming = ColorRange.JPEG if int(frame.color_range) == ColorRange.JPEG.value else ColorRange.MPEG
    colours = {} if frame.format.is_rgb else {"src_colorspace": matrix, "dst_colorspace": matrix, "src_color_range": coming, "dst_color_range": ColorRange.JPEG}
    picture = reformatter.reformat(frame, format="rgb24", **colours).to_ndarray()
    return np.rot90(picture, (frame.rotation // 90) % 4)


def _at_rate(pictures: Iterable[tuple[Fraction, Fraction, np.ndarray]], rate: Fraction, start: Fraction, seconds: float) -> Iterator[np.ndarray]:
    """The picture that is shown at start, start + 1 / rate and so on, as long as there are some."""
    shown, number, until = None, 0, Fraction(0)
    for time, length, picture in pictures:
        # what the next picture replaces is shown until then, files with gaps included
        while shown is not None and start + number / rate + ROUNDING <= time:
            if number / rate >= seconds:
                return
            yield shown
            number += 1
        shown, until = picture, time + length
    while shown is not None and start + number / rate < until and number / rate < seconds:
        yield shown
        number += 1


def _floats(pictures: list[np.ndarray]) -> Tensor:
    """(f, h, w, 3) of 0 to 1; the list is emptied on the way, so that no frame is held twice."""
    result = torch.empty(len(pictures), *pictures[0].shape)
    for start in range(0, len(result), CHUNK):
        part = pictures[start : start + CHUNK]
        result[start : start + len(part)] = torch.from_numpy(np.stack(part)) / 255
        pictures[start : start + len(part)] = [None] * len(part)
    return result


def _sound(path: Path, start: float, seconds: Fraction) -> dict[str, object] | None:
    """ComfyUI's AUDIO from start on, at most so long; None when there is none."""
    with explain_reading(path), av.open(str(path), metadata_errors="replace") as container:
        if not container.streams.audio:
            return None
        stream = container.streams.audio[0]
        resampler = av.AudioResampler(format="fltp", layout="mono" if stream.channels == 1 else "stereo", rate=stream.rate)
        parts = [part.to_ndarray() for frame in container.decode(stream) for part in resampler.resample(frame)]
        parts += [part.to_ndarray() for part in resampler.resample(None)]
        rate = stream.rate
    if not parts:
        return None
    samples = np.concatenate(parts, axis=1)[:, round(start * rate) : round((start + seconds) * rate)]
    return {"waveform": torch.from_numpy(np.ascontiguousarray(samples))[None], "sample_rate": rate} if samples.shape[1] else None
