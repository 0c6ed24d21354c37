"""The sound of a part of a file, every sample at its time."""

import contextlib
import logging
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import torch
from av.container import InputContainer

from .audio import LAYOUTS
from .reading import MistimedError, seek

logger = logging.getLogger(__name__)

GAP = 0.015
"""Seconds. Containers round times, so samples follow each other; where a time is later than that by more, some are missing."""
PREROLL = 2
"""Seconds that are decoded before the part: codecs need what came before, AAC two blocks, Opus 80 ms, MP3 half a second."""


def read_sound(path: Path, begin: Fraction, seconds: Fraction, watch: Callable[[float], None]) -> dict[str, object] | None:
    """ComfyUI's AUDIO of the file's first sound, mono or stereo, from begin on; it ends with the file's sound and lasts `seconds` at most.

    begin: seconds of the container's own clock. Before the sound starts, and where there is a gap in it, there is silence. watch: is called with 1.0 for
    each piece; what it raises comes through. None when no sound is heard in that time. Sound that cannot be decoded is a warning in the log.
    """
    faults: list[Exception] = []
    result = None
    try:
        for start in (begin - PREROLL, None):
            with contextlib.suppress(MistimedError):
                result = _read(path, _Track(begin, seconds), start, faults, watch)
                break
    except (OSError, av.error.FFmpegError) as error:
        faults.append(error)
    if faults:
        logger.warning("%s: its sound could not be read%s (%s).", path, " everywhere" if result else "; the clip is silent", faults[0])
    return result


def _read(path: Path, track: "_Track", start: Fraction | None, faults: list[Exception], watch: Callable[[float], None]) -> dict[str, object] | None:
    """The track's samples, decoded from start on, or from the first one. Raises MistimedError when the container does not lead there."""
    with av.open(str(path), metadata_errors="replace") as container:
        if not container.streams.audio:
            return None
        stream = container.streams.audio[0]
        if stream.codec_context is None:
            faults.append(ValueError("FFmpeg does not know its codec"))
            return None
        if start is not None and start > 0:
            seek(container, stream, start)
        for number, frame in enumerate(_decoded(container, stream, faults)):
            watch(1.0)
            if not number and start is not None and start > 0 and (frame.pts is None or frame.pts * frame.time_base > start + 1):
                raise MistimedError
            if not track.add(frame):
                break
        return track.finish()


def _decoded(container: InputContainer, stream: av.AudioStream, faults: list[Exception]) -> Iterator[av.AudioFrame]:
    """What can be decoded; what is said of the rest goes to faults."""
    for packet in container.demux(stream):
        try:
            frames = packet.decode()
        except av.error.InvalidDataError as error:
            faults.append(error)
        else:
            yield from frames


class _Track:
    """Samples from `begin` on, `seconds` long, in the rate of the first frame that is heard: mono when it is, stereo otherwise."""

    def __init__(self, begin: Fraction, seconds: Fraction) -> None:
        self._begin, self._seconds = float(begin), float(seconds)
        self._samples, self._rate, self._heard = None, 0, 0
        self._setup = self._resampler = self._next = None
        self._position = 0

    def add(self, frame: av.AudioFrame) -> bool:
        """Puts a frame in its place; False when it starts behind the end, as all that follow do."""
        time = self._time(frame)
        if time >= self._begin + self._seconds:
            return False
        self._next = time + frame.samples / frame.sample_rate
        if self._next > self._begin:
            self._place(frame, time)
        return True

    def finish(self) -> dict[str, object] | None:
        """ComfyUI's AUDIO, None when nothing is heard."""
        self._flush()
        if not self._heard:
            return None
        return {"waveform": torch.from_numpy(np.ascontiguousarray(self._samples[:, : self._heard]))[None], "sample_rate": self._rate}

    def _time(self, frame: av.AudioFrame) -> float:
        """When a frame is heard, seconds: where the last one ended, unless there is a gap. Times that go back are no times."""
        if frame.pts is None:
            return self._next or 0.0
        time = frame.pts * float(frame.time_base)
        if self._next is not None and time <= self._next + GAP:
            return self._next
        self._setup = None
        return time

    def _place(self, frame: av.AudioFrame, time: float) -> None:
        setup = frame.format.name, frame.layout.name, frame.sample_rate
        if setup != self._setup:
            self._flush()
            if self._samples is None:
                self._rate = frame.sample_rate
                self._samples = np.zeros((1 if frame.layout.nb_channels == 1 else 2, round(self._seconds * self._rate)), np.float32)
            self._setup, self._position = setup, round((time - self._begin) * self._rate)
            self._resampler = av.AudioResampler(format="fltp", layout=LAYOUTS[len(self._samples)], rate=self._rate)
        for piece in self._resampler.resample(frame):
            self._put(piece.to_ndarray())

    def _flush(self) -> None:
        """Puts what the resampler still holds."""
        for piece in self._resampler.resample(None) if self._resampler else ():
            self._put(piece.to_ndarray())
        self._resampler = None

    def _put(self, piece: np.ndarray) -> None:  # c n
        start, stop = max(self._position, 0), min(self._position + piece.shape[1], self._samples.shape[1])
        if start < stop:
            self._samples[:, start:stop] = piece[:, start - self._position : stop - self._position]
            self._heard = max(self._heard, stop)
        self._position += piece.shape[1]
