"""The video that a clip starts from, in video to video."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from ..video.decode import decode

STEP = 8
"""Sides are multiples of it, in pixels."""


@dataclass(frozen=True)
class Source:
    """A part of a video file.

    frames: (f, h, w, 3), 0 to 1. audio: ComfyUI's AUDIO, None for a silent file. digest: of the whole file, SHA-256 in hex.
    """

    frames: Tensor
    audio: Mapping[str, object] | None
    digest: str

    def size(self, side: int, width: int | None, height: int | None) -> tuple[int, int]:
        """Width and height in pixels, multiples of 8, of this shape: with about side x side pixels, or with the one or both that are given."""
        own_height, own_width = self.frames.shape[1:3]
        scale = side / (own_width * own_height) ** 0.5
        if width is not None or height is not None:
            scale = height / own_height if width is None else width / own_width
        whole = [max(STEP, round(own * scale / STEP) * STEP) for own in (own_width, own_height)]
        return whole[0] if width is None else width, whole[1] if height is None else height

    def shape(self, width: int, height: int) -> tuple[int, int, int, int]:
        """Of what `fitted` gives."""
        return len(self.frames), height, width, 3

    def fitted(self, width: int, height: int) -> Tensor:
        """The frames, (f, height, width, 3): scaled until they cover that, and cut off evenly where they are larger."""
        own_height, own_width = self.frames.shape[1:3]
        if (own_width, own_height) == (width, height):
            return self.frames
        scale = max(width / own_width, height / own_height)
        covering = (max(height, round(own_height * scale)), max(width, round(own_width * scale)))
        pixels = self.frames.permute(0, 3, 1, 2)
        scaled = torch.nn.functional.interpolate(pixels, covering, mode="bicubic", antialias=True).clamp(0, 1)
        top, left = (covering[0] - height) // 2, (covering[1] - width) // 2
        return scaled[:, :, top : top + height, left : left + width].permute(0, 2, 3, 1).contiguous()


def read(path: Path, fps: float, skip_seconds: float, first_n_seconds: float, max_frames: int) -> Source:
    """The part of the video at path that is asked for, at fps frames per second; see `video.decode` for arguments and errors."""
    clip = decode(path, fps, skip_seconds, first_n_seconds, max_frames)
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(2**20):
            digest.update(block)
    return Source(clip.frames, clip.audio, digest.hexdigest())
