"""The inputs of fal's "AnimateDiff Turbo" endpoint, once: names, ranges and defaults for every node and command line.

Source: https://fal.ai/models/fal-ai/fast-animatediff/turbo/text-to-video/api and fal's image size presets.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

NEGATIVE_PROMPT = "(bad quality, worst quality:1.2), ugly faces, bad anime"

CUSTOM_SIZE = "custom"
DEFAULT_SIZE = "square"
VIDEO_SIZES: Mapping[str, tuple[int, int]] = MappingProxyType(
    {
        "square_hd": (1024, 1024),
        "square": (512, 512),
        "portrait_4_3": (768, 1024),
        "portrait_16_9": (576, 1024),
        "landscape_4_3": (1024, 768),
        "landscape_16_9": (1024, 576),
    }
)
"""Width and height in pixels."""


@dataclass(frozen=True)
class Number:
    """A numeric input: its default and the range that is accepted, both ends included."""

    default: float
    minimum: float
    maximum: float


NUM_FRAMES = Number(16, 1, 32)
NUM_INFERENCE_STEPS = Number(8, 1, 50)
VIDEO_INFERENCE_STEPS = Number(12, 1, 50)
"""num_inference_steps of turbo/video-to-video."""
GUIDANCE_SCALE = Number(2.0, 0.0, 20.0)
FPS = Number(8, 1, 16)
SEED = Number(0, 0, 2**31 - 1)
"""fal documents no range; this is what every part of it can hold."""
STRENGTH = Number(0.7, 0.0, 1.0)
"""How much of a given video is replaced, in fal's turbo/video-to-video."""
FIRST_N_SECONDS = Number(3, 2, 4)
"""How much of a given video is used there."""
SIDE = Number(512, 64, 2048)
"""Width or height of a custom size in pixels."""


def size(video_size: str, width: int, height: int) -> tuple[int, int]:
    """Width and height in pixels of a preset, or the given ones for "custom".

    Raises:
        ValueError: video_size is neither a preset nor "custom".
    """
    if video_size == CUSTOM_SIZE:
        return width, height
    if video_size not in VIDEO_SIZES:
        raise ValueError(f"video_size is {video_size!r}; use {CUSTOM_SIZE} or one of {', '.join(VIDEO_SIZES)}.")
    return VIDEO_SIZES[video_size]


def lines(path: Path, kinds: Mapping[str, tuple[type, ...]]) -> dict[int, dict[str, object]]:
    """The requests in a JSON Lines file by the number of their line, each an object with "prompt" and any other of the fields in kinds.

    Raises:
        ValueError: the file can't be read or is empty, or a line is not such an object; it is named.
    """
    found = {}
    for number, line in enumerate(_text(path).split("\n"), 1):
        if line.strip():
            found[number] = _fields(line, f"{path.name}, line {number}", kinds)
    if not found:
        raise ValueError(f'{path} is empty; write one object with a "prompt" on each line.')
    return found


def _fields(line: str, place: str, kinds: Mapping[str, tuple[type, ...]]) -> dict[str, object]:
    try:
        values = json.loads(line)
    except json.JSONDecodeError as error:
        raise ValueError(f"{place} is not JSON ({error}).") from error
    named = isinstance(values, dict) and isinstance(values.get("prompt"), str)
    if not named:
        raise ValueError(f'{place} is not an object with a "prompt".')
    for name, value in values.items():
        if name not in kinds:
            raise ValueError(f"{place} has {name!r}; the fields are {', '.join(kinds)}.")
        fits = isinstance(value, kinds[name]) and not isinstance(value, bool)
        if not fits:
            raise ValueError(f"{place}: {name} is {json.dumps(value)}, which is not {kinds[name][0].__name__}.")
    return values


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 ({error.reason} at byte {error.start}); save it as UTF-8.") from error
    except OSError as error:
        raise ValueError(f"{path} can't be read ({error.strerror}); give a file of JSON lines.") from error
