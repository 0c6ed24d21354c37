"""The pack's own socket types."""

from comfy_api.latest import io

CATEGORY = "AnimateDiff Turbo"

MotionAdapter = io.Custom("ANIMATEDIFF_TURBO_ADAPTER")
