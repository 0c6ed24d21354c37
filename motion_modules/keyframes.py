"""Values at frames and between them, as people write them: "0: a | 8: b"."""

import math
import re
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

_START = re.compile(r"(?:^|[|\n])\s*(\d+)\s*:")
_BRACKETS = re.compile(r"\{[^{}]*\}|\[[^\[\]]*\]|\([^()]*\)")  # in them a | belongs to the text


def parse(text: str) -> dict[int, str]:
    """The texts by their frames, counted from 0, ascending.

    Raises ValueError when text is not such a list, names a frame twice, or has a part without a frame and a colon.
    """
    text = text.rstrip("| \t\r\n")
    starts = list(_START.finditer(text))
    if not starts or text[: starts[0].start()].strip():
        raise ValueError(f"{_short(text)} is no list of keyframes; write the frame, a colon and the value, as in 0: first | 8: second.")
    ends = [start.start() for start in starts[1:]] + [len(text)]
    found: dict[int, str] = {}
    for start, end in zip(starts, ends, strict=True):
        frame = int(start[1])
        if frame in found:
            raise ValueError(f"{_short(text)} names frame {frame} twice; leave one out.")
        found[frame] = text[start.end() : end].strip()
        for part in filter(None, map(str.strip, _bare(found[frame]).split("|")[1:])):
            fix = "write the frame, a colon and the value, as in 8: second; a | that belongs to the text goes into brackets"
            raise ValueError(f"{_short(part)} has no frame and colon in front; {fix}.")
    return dict(sorted(found.items()))


def _bare(text: str) -> str:
    """Without what is in brackets, whole ones."""
    inner = _BRACKETS.sub("", text)
    return text if inner == text else _bare(inner)


def shares(keyframes: Iterable[int], frames: Iterable[int]) -> Tensor:
    """How much of each keyframe every frame has, (frames, keyframes): all of one on it and before the first or after the last, linear between two.

    Args:
        keyframes: ascending.
        frames: numbers of the frames that are asked for, in any order.
    """
    at = torch.tensor(list(keyframes))
    asked = torch.tensor(list(frames)).clamp(at[0], at[-1])
    later = torch.searchsorted(at, asked)
    earlier = (later - 1).clamp(min=0)
    share = ((asked - at[earlier]) / (at[later] - at[earlier]).clamp(min=1))[:, None]
    one = torch.eye(len(at))
    return torch.where((later == earlier)[:, None], one[later], (1 - share) * one[earlier] + share * one[later])


def numbers(text: str) -> dict[int, float]:
    """The numbers by their frames, from keyframes such as "0: 0.5 | 8: 1". Raises ValueError when one is no number."""
    values = {}
    for frame, value in parse(text).items():
        try:
            values[frame] = float(value)
        except ValueError as error:
            raise ValueError(f"{_short(value)} at frame {frame} is no number; write one such as 0.5.") from error
        if not math.isfinite(values[frame]):
            raise ValueError(f"{value} at frame {frame} is not finite; write a number such as 0.5.")
    return values


def curve(values: Mapping[int, float], frames: Iterable[int]) -> Tensor:
    """The value at each of these frames, (frames,), from `numbers`."""
    return shares(values, frames) @ torch.tensor(list(values.values()))


def _short(text: str) -> str:
    return repr(text if len(text) <= 40 else f"{text[:37]}...")
