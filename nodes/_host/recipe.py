"""What Apply Motion Adapter leaves on a MODEL for the samplers."""

from dataclasses import dataclass

import comfy.model_patcher

from ...motion_modules.config import Adapter

KEY = "animatediff_turbo"


@dataclass(frozen=True)
class Recipe:
    """The adapter's row, its file and its longest clip in frames."""

    adapter: Adapter
    file: str
    max_frames: int


def recipe(model: comfy.model_patcher.ModelPatcher) -> Recipe:
    """What Apply Motion Adapter left on model; raises ValueError when there was none."""
    found = model.get_attachment(KEY)
    if found is None:
        raise ValueError("This model has no motion adapter; connect Apply Motion Adapter between the checkpoint and this node.")
    return found
