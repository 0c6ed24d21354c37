"""Which frames of a file are taken."""

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction

from .times import Shown

MICROSECOND = 1_000_000
"""Parts of a second; a float's own error is far below one of them."""


@dataclass(frozen=True)
class Part:
    """A part of a file.

    start: seconds from the first frame. seconds: its length, None: to the end of the file. most: frames, None: as many as there are.
    rate: frames per second; None: each frame of the file once.
    """

    start: Fraction
    seconds: Fraction | None
    most: int | None
    rate: Fraction | None

    @property
    def end(self) -> Fraction | None:
        """Seconds from the first frame of the file, None for the end of the file."""
        ends = [] if self.seconds is None else [self.seconds]
        ends += [self.most / self.rate] if self.most and self.rate else []
        return self.start + min(ends) if ends else None


def asked(fps: float, skip_seconds: float, first_n_seconds: float, max_frames: int) -> Part:
    """The part that `decode` is asked for; 0 as there. Raises ValueError for arguments out of range."""
    for name, value in (("fps", fps), ("skip_seconds", skip_seconds), ("first_n_seconds", first_n_seconds), ("max_frames", max_frames)):
        if not (math.isfinite(value) and value >= 0):
            raise ValueError(f"{name} is {value}; use 0 or more.")
    rate = Fraction(fps).limit_denominator(10_000)
    if fps and not rate:
        raise ValueError(f"fps is {fps}; use 0, or 0.0001 and more.")
    return Part(_exact(skip_seconds), _exact(first_n_seconds) if first_n_seconds else None, max_frames or None, rate or None)


def _exact(seconds: float) -> Fraction:
    """What was meant by a float: 11/10 by 1.1, which is a little more."""
    return Fraction(seconds).limit_denominator(MICROSECOND)


def taken(frames: Iterator[Shown], part: Part) -> Iterator[Shown]:
    """The frames of a part, as often as they are shown in it: at least one, unless the file ends before it starts. No more frames are asked for than needed."""
    if part.rate is None:
        return itertools.islice(_each(frames, part), part.most)
    counts = [part.most] if part.most else []
    counts += [] if part.seconds is None else [max(1, math.ceil(part.seconds * part.rate))]
    return itertools.islice(_at_rate(frames, part.start, part.rate), min(counts, default=None))


def _at_rate(frames: Iterator[Shown], start: Fraction, rate: Fraction) -> Iterator[Shown]:
    """What is shown at start, start + 1 / rate and so on; a frame is shown until the next one, files with gaps included."""
    shown, number, moment = None, 0, start
    for each in frames:
        while shown is not None and moment < each.since:
            yield shown
            number += 1
            moment = start + number / rate
        shown = each
    while shown is not None and moment < shown.end:
        yield shown
        number += 1
        moment = start + number / rate


def _each(frames: Iterator[Shown], part: Part) -> Iterator[Shown]:
    """What is shown at the start of the part, and every frame that starts within the part's length of that one."""
    end = None
    for shown, following in itertools.pairwise(itertools.chain(frames, [None])):
        if following is not None and following.since <= part.start:
            continue
        if end is None:
            if following is None and shown.end <= part.start:
                return
            end = math.inf if part.seconds is None else shown.start + part.seconds
        elif shown.start + shown.slack >= end:
            return
        yield shown
