"""Frames to a video file: mp4 (H.264 and AAC), webm (VP9 and Opus) or animated webp.

mp4 and webm are streamed: whatever the length, a few 8-bit frames and the codec's own look-ahead are in memory, and the codec runs in a thread of its
own while the next frames are made. webp goes through Pillow, which needs all frames at once (as 8-bit). A file appears under its name only when it is
complete.
"""
import contextlib
import itertools
import logging
import math
import os
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import torch
from av.codec.codec import UnknownCodecError

from .audio import check_audio
from .errors import VideoError, explain_writing
from .formats import FORMATS, Format, Job
from .metadata import json_tags
from .overlap import overlapped
from .pictures import pictures, play_order

logger = logging.getLogger(__name__)

DEFAULT_QUALITY = 80
MAX_LOOPS = 65_535  # 16 bits in a webp


@dataclass(frozen=True)
class Encoded:
    """What was written: the file, its size in pixels (after padding), its frames (pingpong and copies included) and their rate."""

    path: Path
    width: int
    height: int
    frame_count: int
    fps: Fraction


def check(
    path: str | Path, fps: float | Fraction, format: str | Format, quality: float = DEFAULT_QUALITY, loop_count: int = 0,
    audio: Mapping[str, object] | None = None, metadata: dict[str, object] | None = None,
) -> Job:
    """What `encode` refuses before it sees a frame, for programs that compute the frames at some cost. Arguments and errors as there."""
    row = _find_format(format)
    path = Path(path).absolute()  # ffmpeg would take "a:b.mp4" for an address
    rate = _check_rate(fps, row)
    if path.suffix.lower() != row.suffix:
        raise ValueError(f"{path.name} is to be a {row.suffix} file; give it that ending or choose another format.")
    if not 0 <= quality <= 100:
        raise ValueError(f"quality is {quality}; choose 0 (smallest file) to 100 (best).")
    if not 0 <= loop_count <= MAX_LOOPS:
        raise ValueError(f"loop_count is {loop_count}; choose 0 to {MAX_LOOPS}.")
    if audio is not None and not row.audio_codec:
        raise ValueError(f"{row.suffix[1:]} has no sound; choose mp4 or webm, or disconnect audio.")
    sound = check_audio(audio) if audio is not None else None
    job = Job(path, row, rate, quality, loop_count, sound, _check_tags(metadata or {}, path, row))
    _require_codecs(job)
    return job


def encode(
    frames: Iterable[torch.Tensor], path: str | Path, fps: float | Fraction, format: str | Format, quality: float = DEFAULT_QUALITY,
    pingpong: bool = False, loop_count: int = 0, audio: Mapping[str, object] | None = None, metadata: dict[str, object] | None = None,
    watch: Callable[[int], None] = lambda done: None,
) -> Encoded:
    """Write frames as one video file, completely or not at all.

    frames: tensors (h, w, c) of one size, float 0..1 (values outside are clamped) or uint8 0..255, c = 1, 3 or 4 (alpha is dropped), from a batch
    (f, h, w, c), a list or a generator, which is run in the caller's thread. uint8 frames are read later: they must not change any more.
    pingpong and the copies of mp4 and webm play frames again; those of a generator are kept for it as they come.
    path: ends in the format's suffix; its folder exists. A file of that name is replaced.
    fps: above 0 up to 240 (webp 90); a Fraction for exact broadcast rates, a float becomes the nearest fraction of denominator <= 10000.
    format: a name in `FORMATS`, or a row of one's own. quality: 0..100; 100 is lossless for webp and not for mp4 and webm.
    mp4 and webm repeat the last row or column of pixels where a side is odd.
    pingpong: play forward, then backward without the first and the last frame again (0 1 2 3 2 1).
    loop_count: webp: how often players play it, 0 = forever; mp4 and webm: extra copies of the clip in the file.
    audio: ComfyUI's AUDIO, mono or stereo; plays once from the start and is cut at the end of the (looped) clip. Not for webp.
    metadata: objects by name ("workflow", "prompt"), stored as JSON (see `metadata.json_tags`).
    watch: is called in this thread at every frame with the number of those that went to the codec; for webp with 0 until all frames are there.

    Raises ValueError for arguments that make no clip (no frames, frames of different sizes), VideoError when the file cannot be written
    or a frame holds NaN. What the iteration of frames and watch raise comes through unchanged. After any of them path is as it was before.
    """
    job = replace(check(path, fps, format, quality, loop_count, audio, metadata), watch=watch)
    ordered = play_order(frames, pingpong, 0 if job.format.stores_loops else loop_count)
    with _complete_or_nothing(job.path) as temporary, contextlib.closing(pictures(ordered, job.path, job.format.even, job.format.max_side)) as clip:
        first = next(clip, None)
        if first is None:
            raise ValueError("there are no frames; a clip has at least one.")
        count = _written(itertools.chain([first], clip), temporary, job)
    height, width = first.shape[:2]
    logger.info("wrote %s: %d frames of %dx%d at %s fps", job.path, count, width, height, job.fps)
    return Encoded(job.path, width, height, count, job.fps)


def _written(clip: Iterable[np.ndarray], path: Path, job: Job) -> int:
    if job.format.beside:
        return overlapped(lambda items: job.format.write(items, path, job), _watched(clip, job.watch))
    return job.format.write(_watched(clip, lambda done: job.watch(0)), path, job)


def _watched(clip: Iterable[np.ndarray], watch: Callable[[int], None]) -> Iterator[np.ndarray]:
    for done, picture in enumerate(clip, 1):
        yield picture
        watch(done)


def _find_format(format: str | Format) -> Format:
    if isinstance(format, Format):
        return format
    if format not in FORMATS:
        raise ValueError(f"format {format!r} is unknown; choose one of {', '.join(FORMATS)}.")
    return FORMATS[format]


def _check_rate(fps: float | Fraction, row: Format) -> Fraction:
    rate = Fraction(fps).limit_denominator(10_000) if math.isfinite(fps) else Fraction(0)
    if not 0 < rate <= row.max_fps:
        raise ValueError(f"fps is {fps}; for {row.suffix[1:]} choose a rate above 0 and up to {row.max_fps} frames per second.")
    return rate


def _check_tags(metadata: dict[str, object], path: Path, row: Format) -> dict[str, str]:
    tags = json_tags(metadata)
    size = sum(map(len, tags.values()))
    if size >= row.max_tags:
        logger.warning("%s holds %d bytes of workflow, too many for ComfyUI to restore it from a %s file", path, size, row.suffix[1:])
    return tags


def _require_codecs(job: Job) -> None:
    for codec in filter(None, (job.format.codec, job.format.audio_codec if job.sound else "")):
        try:
            av.codec.Codec(codec, "w")
        except UnknownCodecError as error:
            reason = f"this PyAV has no codec {codec}; choose another format or reinstall av"
            raise VideoError(f"{job.path} was not written: {reason}.") from error


@contextlib.contextmanager
def _complete_or_nothing(path: Path) -> Iterator[Path]:
    """A file to write in path's folder; it becomes `path` at the end, or is removed when the block raises. What a killed process leaves says whose it was."""
    temporary = path.with_name(f".{path.stem[:40]}.{uuid.uuid4().hex}{path.suffix}")
    try:
        with explain_writing(path):
            with contextlib.suppress(FileNotFoundError):
                os.lstat(path)  # a name that is too long is found, too
            temporary.touch()  # a folder that cannot be written is found before the first frame is made
        yield temporary
        with explain_writing(path):
            os.replace(temporary, path)
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()
