"""The pack's own socket types, and inputs that nodes share."""

from comfy_api.latest import io

from .. import schema

CATEGORY = "AnimateDiff Turbo"
MAX_FRAMES = 4096

MotionAdapter = io.Custom("ANIMATEDIFF_TURBO_ADAPTER")


def frames_input(tooltip: str) -> io.Int.Input:
    """The length of a clip, under the endpoint's name."""
    return io.Int.Input(
        "num_frames",
        default=int(schema.NUM_FRAMES.default),
        min=int(schema.NUM_FRAMES.minimum),
        max=MAX_FRAMES,
        display_name="frames",
        tooltip=tooltip,
    )
