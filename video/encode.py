"""Frames to a video file: mp4 (H.264 and AAC), webm (VP9 and Opus) or animated webp.

mp4 and webm are streamed: whatever the length, one frame and the codec's own look-ahead are in memory. webp goes through Pillow, which
needs all frames at once (as 8-bit). A file appears under its name only when it is complete.
"""
import contextlib
import itertools
import logging
import math
import os
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import torch
from av.codec.codec import UnknownCodecError
from av.video.reformatter import ColorRange, Colorspace, VideoReformatter
from PIL import Image, features

from .audio import AudioStream, check_audio
from .errors import VideoError, explain_writing
from .metadata import json_tags, webp_exif
from .pictures import pictures, play_order

logger = logging.getLogger(__name__)

DEFAULT_QUALITY = 80
MAX_LOOPS = 65_535  # 16 bits in a webp
_BT709 = 1  # H.273's number for matrix, primaries and transfer alike
_AAC_RATES = (8_000, 11_025, 12_000, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000, 64_000, 88_200, 96_000)


@dataclass(frozen=True)
class Encoded:
    """What was written: the file, its size in pixels (after padding), its frames (pingpong and copies included) and their rate."""

    path: Path
    width: int
    height: int
    frame_count: int
    fps: Fraction


@dataclass(frozen=True)
class Job:
    """The checked arguments of one `encode`, as a writer needs them."""

    path: Path
    format: "Format"
    fps: Fraction
    quality: float
    loop_count: int
    sound: tuple[np.ndarray, int] | None
    tags: dict[str, str]


@dataclass(frozen=True)
class Format:
    """One kind of file; a row of `FORMATS`."""

    suffix: str
    write: Callable[[Iterator[np.ndarray], Path, Job], int]  # pictures (h w c) uint8 into the file; how many there were
    codec: str = ""
    crf: tuple[float, float] = (0, 0)  # at quality 0 and at quality 100
    options: Mapping[str, str] = field(default_factory=dict)
    container_options: Mapping[str, str] = field(default_factory=dict)
    audio_codec: str = ""  # none: the file has no sound
    audio_rates: tuple[int, ...] = ()  # Hz; another rate becomes 48000
    even: bool = True  # 4:2:0 colour comes in blocks of 2x2 pixels
    stores_loops: bool = False  # loop_count is a number in the file, not copies of the frames
    max_side: int = 16_384
    max_fps: int = 240
    max_tags: int = 2**26  # bytes of the file in which ComfyUI's frontend looks for metadata


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
        raise ValueError(f"{row.suffix[1:]} has no sound; choose mp4 or webm.")
    sound = check_audio(audio) if audio is not None else None
    job = Job(path, row, rate, quality, loop_count, sound, _check_tags(metadata or {}, path, row))
    _require_codecs(job)
    return job


def encode(
    frames: Iterable[torch.Tensor], path: str | Path, fps: float | Fraction, format: str | Format, quality: float = DEFAULT_QUALITY,
    pingpong: bool = False, loop_count: int = 0, audio: Mapping[str, object] | None = None, metadata: dict[str, object] | None = None,
) -> Encoded:
    """Write frames as one video file, completely or not at all.

    frames: tensors (h, w, c) float 0..1 of one size, c = 1, 3 or 4 (alpha is dropped; values outside are clamped), from a batch
    (f, h, w, c), a list or a generator. pingpong and the copies of mp4 and webm play frames again, so they need a batch or a list.
    path: ends in the format's suffix; its folder exists. A file of that name is replaced.
    fps: above 0 up to 240 (webp 90); a Fraction for exact broadcast rates, a float becomes the nearest fraction of denominator <= 10000.
    format: a name in `FORMATS`, or a row of one's own. quality: 0..100; 100 is lossless for webp and not for mp4 and webm.
    mp4 and webm repeat the last row or column of pixels where a side is odd.
    pingpong: play forward, then backward without the first and the last frame again (0 1 2 3 2 1).
    loop_count: webp: how often players play it, 0 = forever; mp4 and webm: extra copies of the clip in the file.
    audio: ComfyUI's AUDIO, mono or stereo; plays once from the start and is cut at the end of the (looped) clip. Not for webp.
    metadata: objects by name ("workflow", "prompt"), stored as JSON (see `metadata.json_tags`).

    Raises ValueError for arguments that make no clip (no frames, frames of different sizes), VideoError when the file cannot be written
    or a frame holds NaN. What the iteration of frames raises comes through unchanged. After any of them path is as it was before.
    """
    job = check(path, fps, format, quality, loop_count, audio, metadata)
    ordered = play_order(frames, pingpong, 0 if job.format.stores_loops else loop_count)
    with _complete_or_nothing(job.path) as temporary:
        clip = pictures(ordered, job.path, job.format.even, job.format.max_side)
        first = next(clip, None)
        if first is None:
            raise ValueError("there are no frames; a clip has at least one.")
        count = job.format.write(itertools.chain([first], clip), temporary, job)
    height, width = first.shape[:2]
    logger.info("wrote %s: %d frames of %dx%d at %s fps", job.path, count, width, height, job.fps)
    return Encoded(job.path, width, height, count, job.fps)


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
    """A file to write in path's folder; it becomes `path` at the end, or is removed when the block raises."""
    temporary = path.with_name(f".{uuid.uuid4().hex}{path.suffix}")
    try:
        with explain_writing(path):
            temporary.touch()  # a folder that cannot be written is found before the first frame is made
        yield temporary
        with explain_writing(path):
            os.replace(temporary, path)
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


class _Stream:
    """One mp4 or webm under construction."""

    def __init__(self, path: Path, job: Job, width: int, height: int) -> None:
        row = job.format
        self._fps, self._count, self._reformatter = job.fps, 0, VideoReformatter()
        self._container = av.open(str(path), "w", format=row.suffix[1:], container_options=dict(row.container_options))
        self._container.metadata.update(job.tags)
        worst, best = row.crf
        crf = round(worst + (best - worst) * job.quality / 100)
        options = {**row.options, "crf": str(crf)}
        self._video = self._container.add_stream(row.codec, rate=job.fps, options=options, width=width, height=height, pix_fmt="yuv420p")
        context = self._video.codec_context
        context.time_base = 1 / job.fps
        context.bit_rate = 0  # for VP9, crf is a quality only without a bit rate
        context.colorspace = context.color_primaries = context.color_trc = _BT709
        context.color_range = ColorRange.MPEG
        self._audio = None
        if job.sound is not None and job.sound[0].size:
            self._audio = AudioStream(self._container, row.audio_codec, row.audio_rates, *job.sound)

    def write(self, picture: np.ndarray) -> None:
        """Encode one (h, w, 3) uint8 picture, and the sound up to its end."""
        frame = self._reformatter.reformat(
            av.VideoFrame.from_ndarray(picture, format="rgb24"), format="yuv420p", src_colorspace=Colorspace.ITU709,
            dst_colorspace=Colorspace.ITU709, src_color_range=ColorRange.JPEG, dst_color_range=ColorRange.MPEG,
        )
        frame.pts, frame.time_base = self._count, 1 / self._fps
        self._container.mux(self._video.encode(frame))
        self._count += 1
        if self._audio:
            self._audio.write_until(self._count / self._fps)

    def finish(self) -> int:
        """Encode what the codecs still hold and complete the file; the number of frames."""
        self._container.mux(self._video.encode(None))
        if self._audio:
            self._audio.finish()
        self._container.close()
        return self._count

    def abandon(self) -> None:
        """Release the file, complete or not. The first error is the one that counts, not what a half file says at its end."""
        with contextlib.suppress(av.error.FFmpegError):
            self._container.close()


def _write_stream(clip: Iterator[np.ndarray], path: Path, job: Job) -> int:
    first = next(clip)
    with explain_writing(job.path):
        stream = _Stream(path, job, first.shape[1], first.shape[0])
    try:
        for picture in itertools.chain([first], clip):
            with explain_writing(job.path):
                stream.write(picture)
        with explain_writing(job.path):
            return stream.finish()
    finally:
        stream.abandon()


def _write_webp(clip: Iterator[np.ndarray], path: Path, job: Job) -> int:
    if not features.check("webp"):
        raise VideoError(f"{job.path} was not written: this Pillow has no webp; choose another format or reinstall Pillow.")
    images = [Image.fromarray(picture) for picture in clip]
    # Whole milliseconds, rounded from the start of the clip so that the errors do not add up.
    times = [round(index * 1000 / job.fps) for index in range(len(images) + 1)]
    lossless = job.quality == 100
    with explain_writing(job.path):
        images[0].save(
            path, format="WEBP", save_all=True, append_images=images[1:], duration=[b - a for a, b in itertools.pairwise(times)],
            loop=job.loop_count, lossless=lossless, quality=75 if lossless else job.quality, method=4, exif=webp_exif(job.tags),
        )
    return len(images)


FORMATS = {
    "mp4": Format(
        ".mp4", _write_stream, codec="libx264", crf=(47, 12), options={"preset": "veryfast"}, audio_codec="aac", audio_rates=_AAC_RATES,
        # Without use_metadata_tags the workflow is not stored; faststart keeps it in the first 64 MB, all that the frontend reads.
        container_options={"movflags": "use_metadata_tags+faststart"},
    ),
    "webm": Format(
        ".webm", _write_stream, codec="libvpx-vp9", crf=(60, 16), options={"deadline": "good", "cpu-used": "4", "row-mt": "1"},
        audio_codec="libopus", audio_rates=(48_000,), max_tags=2**21,
    ),
    # Browsers show frames of 10 ms and less for 100 ms.
    "webp": Format(".webp", _write_webp, even=False, stores_loops=True, max_side=16_383, max_fps=90),
}
