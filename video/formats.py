"""The kinds of files that `encode` writes, a row of `FORMATS` each, and how each is written."""
import contextlib
import itertools
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import torch
from av.video.reformatter import ColorRange, Colorspace, Interpolation, VideoReformatter
from PIL import Image, features

from .audio import AudioStream
from .errors import VideoError, explain_writing
from .metadata import webp_exif

logger = logging.getLogger(__name__)

_BT709 = 1  # H.273's number for matrix, primaries and transfer alike
# On processors with AVX-512, x264's mbtree reads memory that nobody wrote: the same small frames give another file at every call (measured; at the
# same speed without). Such a processor has all of these.
_WITHOUT_AVX512 = "asm=MMX2,SSE2Fast,SSSE3,SSE4.2,AVX,FMA3,BMI2,AVX2"
_ONE_THREAD = 256 * 256
"""Pixels of frames up to which one thread of x264 is done sooner than several (measured with 16 frames: 128x128 12 ms for 16, 256x256 25 for 26)."""
_AAC_RATES = (8_000, 11_025, 12_000, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000, 64_000, 88_200, 96_000)


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
    watch: Callable[[int], None] = lambda done: None  # of a writer that is not `beside`


@dataclass(frozen=True)
class Format:
    """One kind of file; a row of `FORMATS`."""

    suffix: str
    write: Callable[[Iterator[np.ndarray], Path, Job], int]  # pictures (h w c) uint8 into the file; how many there were
    codec: str = ""
    crf: tuple[float, float] = (0, 0)  # at quality 0 and at quality 100
    crf_option: str = "crf"  # what the codec calls it
    presets: tuple[tuple[float, str], ...] = ()  # (quality, preset) up to that quality
    options: Mapping[str, str] = field(default_factory=dict)
    container_options: Mapping[str, str] = field(default_factory=dict)
    audio_codec: str = ""  # none: the file has no sound
    audio_rates: tuple[int, ...] = ()  # Hz; another rate becomes 48000
    even: bool = True  # 4:2:0 colour comes in blocks of 2x2 pixels
    stores_loops: bool = False  # loop_count is a number in the file, not copies of the frames
    beside: bool = True  # frames are written while others are made, in a thread of its own
    max_side: int = 16_384
    max_fps: int = 240
    max_tags: int = 2**26  # bytes of the file in which ComfyUI's frontend looks for metadata
    fallback: "Format | None" = None  # used when the codec refuses the first frame

    def codec_options(self, quality: float, width: int, height: int) -> dict[str, str]:
        """What the codec is told for a quality of 0..100 and frames of this size."""
        worst, best = self.crf
        options = {self.crf_option: f"{round(worst + (best - worst) * quality / 100, 1):g}"}
        if self.presets:
            options["preset"] = next(preset for highest, preset in self.presets if quality <= highest)
        if self.codec == "libx264" and torch.backends.cpu.get_cpu_capability().startswith("AVX512"):
            options["x264-params"] = _WITHOUT_AVX512
        if self.codec == "libx264" and width * height <= _ONE_THREAD:
            options["threads"] = "1"
        return options | dict(self.options)


class _Stream:
    """One mp4 or webm under construction."""

    def __init__(self, path: Path, job: Job, row: Format, width: int, height: int) -> None:
        self._fps, self._count, self._reformatter = job.fps, 0, VideoReformatter()
        self._container = av.open(str(path), "w", format=row.suffix[1:], container_options=dict(row.container_options))
        self._container.metadata.update(job.tags)
        options = row.codec_options(job.quality, width, height)
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
            interpolation=Interpolation.BICUBIC,  # of the colours: a third of a decibel better at their edges, in the same time
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
        stream = _started(first, path, job)
    try:
        for picture in clip:
            with explain_writing(job.path):
                stream.write(picture)
        with explain_writing(job.path):
            return stream.finish()
    finally:
        stream.abandon()


def _started(first: np.ndarray, path: Path, job: Job) -> _Stream:
    """A stream with its first frame, of the fallback's codec when the format's own refuses it."""
    row = job.format
    while True:
        stream = _Stream(path, job, row, first.shape[1], first.shape[0])
        try:
            stream.write(first)
        except (OSError, av.error.FFmpegError) as error:
            stream.abandon()
            if row.fallback is None:
                raise
            logger.warning("%s refuses frames of %dx%d (%s); %s is used.", row.codec, *first.shape[1::-1], error, row.fallback.codec)
            row = row.fallback
        else:
            return stream


class _Durations(list):
    """Milliseconds. Pillow takes each number when it has compressed its frame: the one place where others are heard meanwhile."""

    def __init__(self, durations: Iterable[int], watch: Callable[[int], None]) -> None:
        super().__init__(durations)
        self._watch = watch

    def __getitem__(self, index: int) -> int:
        self._watch(index + 1)
        return super().__getitem__(index)


def _write_webp(clip: Iterator[np.ndarray], path: Path, job: Job) -> int:
    if not features.check("webp"):
        raise VideoError(f"{job.path} was not written: this Pillow has no webp; choose another format or reinstall Pillow.")
    images = [Image.fromarray(picture) for picture in clip]
    # Whole milliseconds, rounded from the start of the clip so that the errors do not add up.
    times = [round(index * 1000 / job.fps) for index in range(len(images) + 1)]
    lossless = job.quality == 100
    with explain_writing(job.path):
        images[0].save(
            path, format="WEBP", save_all=True, append_images=images[1:], duration=_Durations((b - a for a, b in itertools.pairwise(times)), job.watch),
            loop=job.loop_count, lossless=lossless, quality=75 if lossless else job.quality, method=4, exif=webp_exif(job.tags),
        )
    return len(images)


FORMATS = {
    "mp4": Format(
        # Measured on clips of 16 frames: "superfast" with mbtree, which it leaves out, takes a quarter less time than "veryfast" for a tenth more bytes.
        # "faster" saves a fifth of the bytes where files are to be small, in the time that more quality costs anyway.
        ".mp4", _write_stream, codec="libx264", crf=(47, 12), presets=((40, "faster"), (100, "superfast")), options={"mbtree": "1", "rc-lookahead": "10"},
        audio_codec="aac", audio_rates=_AAC_RATES,
        # Without use_metadata_tags the workflow is not stored; faststart keeps it in the first 64 MB, all that the frontend reads.
        container_options={"movflags": "use_metadata_tags+faststart"},
    ),
    "webm": Format(
        ".webm", _write_stream, codec="libvpx-vp9", crf=(60, 16), options={"deadline": "good", "cpu-used": "4", "row-mt": "1"},
        audio_codec="libopus", audio_rates=(48_000,), max_tags=2**21,
    ),
    # Browsers show frames of 10 ms and less for 100 ms.
    "webp": Format(".webp", _write_webp, even=False, stores_loops=True, beside=False, max_side=16_383, max_fps=90),
}
