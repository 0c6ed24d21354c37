"""How much motion is added: everywhere the same, or by frame and place."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch

from ...motion_modules import keyframes
from .windows import shown


@dataclass(frozen=True)
class Strength:
    """A number, times a curve over the clip's frames, times a mask.

    value: 1 is as trained. curve: see `keyframes.numbers`; empty is 1 throughout. mask: (frames or 1, height, width), 0 to 1; None is 1 throughout.
    """

    value: float = 1.0
    curve: Mapping[int, float] = field(default_factory=dict)
    mask: torch.Tensor | None = None

    @classmethod
    def of(cls, value: float, curve: Mapping[int, float], mask: torch.Tensor | None) -> "Strength":
        """From a mask of any shape (..., height, width) on any device: with --gpu-only, and from some nodes, it comes on the GPU."""
        return cls(value, curve, None if mask is None else mask.reshape(-1, *mask.shape[-2:]).to("cpu", torch.float32))

    def at(self, frames: Sequence[int], total: int) -> float | torch.Tensor:
        """For frames of a clip of total: one number, or (f or 1, 1, h, w). Raises ValueError when the mask is of another clip."""
        if self.mask is None and not self.curve:
            return self.value
        result = torch.full((1, 1, 1, 1), self.value)
        if self.curve:
            result = result * keyframes.curve(self.curve, frames)[:, None, None, None]
        if self.mask is not None:
            if len(self.mask) not in (1, total):
                raise ValueError(f"The mask of Apply Motion Adapter has {len(self.mask)} frames and the clip {total}; give one mask, or one for each frame.")
            result = result * (self.mask if len(self.mask) == 1 else self.mask[list(frames)])[:, None]
        return result


def frames_in_call(options: dict, count: int) -> tuple[Sequence[int], int]:
    """Which frames of the clip a UNet call of count frames has, and how many the clip has."""
    window = options.get("context_window")
    if window is None:
        return range(count), count
    return shown(window), window.total_frames
