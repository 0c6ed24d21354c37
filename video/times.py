"""When each frame of a file is shown."""

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction

import av
from av.container import InputContainer

from .reading import MistimedError, seek

ROUNDING = Fraction(1, 1000)
"""Seconds by which containers round when a frame starts; Matroska and webm count milliseconds."""
SLIPS = 0.01
"""Share of frames whose time may go back, beside one: a slip of the writer, and no sign that these are not the frames' times."""
NEVER = 10_000
"""Frames per second; above it a file's own rate is a mistake of its writer."""
LEADING = 32
"""Frames at most that are shown before the key frame behind which their data is; they may refer to what a seek leaves out."""


@dataclass(frozen=True)
class Shown:
    """A decoded frame and when it is shown: from start to end, in seconds from the file's first frame.

    slack: seconds by which start may be rounded; 0 where it is exact.
    """

    frame: av.VideoFrame
    start: Fraction
    end: Fraction
    slack: Fraction

    @property
    def since(self) -> Fraction:
        """The first moment that belongs to the frame: when it starts, or what may have been rounded to that."""
        return self.start - self.slack


class Clock:
    """Turns a container's times into seconds from its first frame.

    A time that lies within the container's rounding of a whole number of frames, at the file's own rate, is that number: of frames of 1/24 s webm says
    that they start at 0, 42, 83 ms.

    rate: the file's own, frames per second; None when it does not say. zero: when its first frame is shown, seconds of the container's own clock, None
    before it came. slack: seconds by which the container rounds.
    """

    def __init__(self, stream: av.VideoStream, decoding_times: bool = False) -> None:
        """decoding_times: frames are shown when their data is due, and one after the other where that makes no sense, either."""
        rates = (stream.average_rate, stream.guessed_rate, stream.base_rate)
        self.rate = next((_standard(Fraction(rate)) for rate in rates if rate and rate < NEVER), None)
        self.zero: Fraction | None = None
        self.slack = min(Fraction(stream.time_base), ROUNDING)
        self._usual = 1 / (self.rate or Fraction(25))
        self._decoding_times = decoding_times
        self._first = self._said = None  # seconds as the container says them: of the first frame, of the latest one
        self._last, self._next = Fraction(-1), Fraction(0)
        self._count = self._back = 0
        self._begin = stream.start_time

    def shown(self, frame: av.VideoFrame) -> Shown:
        """The next frame, in the order of showing. Raises MistimedError when times lie before another's again and again, unless by decoding times."""
        base = Fraction(frame.time_base)
        stamp = frame.dts if self._decoding_times else frame.pts
        if self.zero is None:  # a frame's time of decoding is the decoder's delay late
            self.zero = (self._begin if self._decoding_times and self._begin is not None else stamp or 0) * base
        start, slack = (self._next, Fraction(0)) if stamp is None else self._placed(stamp * base)
        duration = getattr(frame, "duration", 0)  # PyAV 14 does not say
        length = duration * base if duration else self._usual
        self._last, self._next = start, start + (self._usual if abs(length - self._usual) <= self.slack else length)
        return Shown(frame, start, self._next, slack)

    def restart(self) -> None:
        """Forgets the last frame, before a seek."""
        self._said, self._last = None, Fraction(-1)

    def _placed(self, now: Fraction) -> tuple[Fraction, Fraction]:
        """Start and slack of the frame of which the container says now."""
        self._first = now if self._first is None else self._first
        start, slack = self._exact(now - self._first)
        if self._decoding_times:
            return (start, slack) if start > self._last else (self._next, Fraction(0))
        self._count += 1
        self._back += self._said is not None and now < self._said
        if self._back > 1 + self._count * SLIPS:
            raise MistimedError
        self._said = now if self._said is None else max(self._said, now)
        return max(start, self._last), slack

    def _exact(self, start: Fraction) -> tuple[Fraction, Fraction]:
        whole = round(start / self._usual) * self._usual
        if whole == start or self._usual > 2 * self.slack >= 2 * abs(whole - start):
            return whole, Fraction(0)
        return start, self.slack


def _standard(rate: Fraction) -> Fraction:
    """30000/1001 and its like where a container gives a neighbour of it, as Matroska does, which counts a frame's nanoseconds."""
    standard = Fraction(round(rate * 1001 / 1000) * 1000, 1001)
    return standard if abs(standard - rate) <= rate / 2_000_000 else rate


def shown_frames(container: InputContainer, stream: av.VideoStream, clock: Clock, start: Fraction = Fraction(0)) -> Iterator[Shown]:
    """The frames in the order of showing; from the key frame on that is needed for what is shown at start, when that is not 0.

    Raises MistimedError when the container does not lead there, and what `Clock` raises. Frames are then to be read from the first one on.
    """
    frames = container.decode(stream)
    if start:
        first = next(frames, None)
        if first is None:
            return
        clock.shown(first)
        clock.restart()
        seek(container, stream, clock.zero + start)
        frames = container.decode(stream)
        key = next((frame for frame in itertools.islice(frames, LEADING) if frame.key_frame), None)
        if key is None or key.pts is None or key.is_corrupt:
            raise MistimedError
        shown = clock.shown(key)
        if shown.start > start:
            raise MistimedError
        yield shown
    for frame in frames:
        yield clock.shown(frame)


def watched(frames: Iterator[Shown], until: Fraction | None, watch: Callable[[float], None]) -> Iterator[Shown]:
    """The frames; before each one watch hears which share, 0 to 1, of the time until `until` (seconds, None when nobody knows) lies behind it."""
    begin = None
    for shown in frames:
        begin = shown.start if begin is None else begin
        watch(min(1.0, float((shown.start - begin) / (until - begin))) if until is not None and until > begin else 0.0)
        yield shown
