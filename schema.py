"""The inputs of fal's "AnimateDiff Turbo" endpoint, once: names, ranges and defaults for every node and command line.

Source: https://fal.ai/models/fal-ai/fast-animatediff/turbo/text-to-video/api and fal's image size presets.
"""

from collections.abc import Mapping
from dataclasses import dataclass
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
