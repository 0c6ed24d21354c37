"""Frames as a video file takes them: in playing order, 8-bit, of one size."""
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import torch

from .errors import VideoError


def play_order(frames: Iterable[torch.Tensor], pingpong: bool, copies: int) -> Iterator[torch.Tensor]:
    """The frames, with pingpong followed by their way back (0 1 2 3 2 1), and all that `copies` more times.

    Raises ValueError when frames have to be played again and are neither a batch nor a list.
    """
    if not pingpong and not copies:
        return iter(frames)
    if not hasattr(frames, "__len__") or not hasattr(frames, "__getitem__"):
        raise ValueError("pingpong and loop_count play frames again; pass the frames as a batch or a list, not as a generator.")
    count = len(frames)
    once = [*range(count), *(range(count - 2, 0, -1) if pingpong else ())]
    return (frames[index] for _ in range(1 + copies) for index in once)


def pictures(frames: Iterator[torch.Tensor], path: Path, even: bool, max_side: int) -> Iterator[np.ndarray]:
    """Frames (h, w, 1 | 3 | 4) of floats 0..1 as (h, w, 3) uint8, one at a time; `even` repeats the last pixels where a side is odd.

    Alpha is dropped, values outside 0..1 are clamped.
    Raises ValueError for something that is no frame or a change of size, VideoError (about `path`) for NaN and a side above `max_side`.
    """
    size = None
    for index, frame in enumerate(frames):
        picture = _picture(frame, index, path)
        height, width = picture.shape[:2]
        size = size or (width, height)
        if (width, height) != size:
            raise ValueError(f"frame {index} is {width}x{height} and the first is {size[0]}x{size[1]}; resize the frames to one size.")
        if max(size) > max_side:
            raise VideoError(f"{path} was not written: {width}x{height} is above the format's {max_side} pixels a side; resize the frames.")
        padding = ((0, height % 2), (0, width % 2), (0, 0)) if even else ((0, 0),) * 3
        yield np.pad(picture, padding, mode="edge")


def _picture(frame: torch.Tensor, index: int, path: Path) -> np.ndarray:
    if frame.ndim != 3 or frame.shape[-1] not in (1, 3, 4) or not frame.numel() or not frame.is_floating_point():
        raise ValueError(f"frame {index} is {tuple(frame.shape)} {frame.dtype}; frames are (height, width, 1, 3 or 4) of floats 0..1.")
    frame = frame.detach()[..., :3].to("cpu", torch.float32)
    if not torch.isfinite(frame).all():
        raise VideoError(f"{path} was not written: frame {index} holds NaN or infinite values; run the VAE in fp32 or bf16.")
    return frame.clamp(0, 1).mul(255).round().to(torch.uint8).expand(-1, -1, 3).numpy()
