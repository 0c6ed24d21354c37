"""Frames as a video file takes them: in playing order, 8-bit, of one size."""
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import torch

from .errors import VideoError


def play_order(frames: Iterable[torch.Tensor], pingpong: bool, copies: int) -> Iterator[torch.Tensor]:
    """The frames, with pingpong followed by their way back (0 1 2 3 2 1), and all that `copies` more times.

    What is neither a batch nor a list comes once: where its frames are played again they are kept, so make them 8-bit.
    """
    if not pingpong and not copies:
        return iter(frames)
    if hasattr(frames, "__len__") and hasattr(frames, "__getitem__"):
        return (frames[index] for index in _indices(len(frames), pingpong, copies))
    return _kept(frames, pingpong, copies)


def played(count: int, pingpong: bool, copies: int) -> int:
    """How many frames `play_order` gives for `count` of them."""
    return (count + max(count - 2, 0) * pingpong) * (1 + copies)


def _indices(count: int, pingpong: bool, copies: int) -> Iterator[int]:
    once = [*range(count), *(range(count - 2, 0, -1) if pingpong else ())]
    return (index for _ in range(1 + copies) for index in once)


def _kept(frames: Iterable[torch.Tensor], pingpong: bool, copies: int) -> Iterator[torch.Tensor]:
    kept = []
    for frame in frames:
        kept.append(frame)
        yield frame
    for played, index in enumerate(_indices(len(kept), pingpong, copies)):
        if played >= len(kept):
            yield kept[index]


def to_bytes(frames: torch.Tensor, buffer: torch.Tensor | None = None) -> torch.Tensor:
    """Finite floats of any shape as uint8 on their own device: clamped to 0..1, times 255, rounded to the nearest (halves to even).

    buffer: float32 of that shape and device, for what comes between; saves an allocation where many frames follow each other.
    """
    return torch.clamp(frames.to(torch.float32), 0, 1, out=buffer).mul_(255).round_().to(torch.uint8)


def extremes(frames: torch.Tensor) -> torch.Tensor:
    """The least and the greatest value of each frame of (n, h, w, c), (2, n) on their own device; NaN where there is one."""
    return torch.stack([frames.amin((1, 2, 3)), frames.amax((1, 2, 3))])


def check_finite(found: torch.Tensor, first: int, path: Path) -> None:
    """Raises VideoError about path when extremes, of frames numbered from first on, say that one holds NaN or infinite values."""
    finite = found.isfinite().all(0)
    if not finite.all():
        index = first + int(finite.int().argmin())
        raise VideoError(f"{path} was not written: frame {index} holds NaN or infinite values; run the VAE in fp32 or bf16.")


def pictures(frames: Iterator[torch.Tensor], path: Path, even: bool, max_side: int) -> Iterator[np.ndarray]:
    """Frames (h, w, 1 | 3 | 4), floats 0..1 or uint8, as (h, w, 3) uint8, one at a time; `even` repeats the last pixels where a side is odd.

    Alpha is dropped, floats outside 0..1 are clamped. One frame is converted at a time: it stays in the processor's cache from pass to pass,
    which takes half as long as the same passes over a whole batch.
    Raises ValueError for something that is no frame or a change of size, VideoError (about `path`) for NaN and a side above `max_side`.
    """
    size = buffer = None
    for index, frame in enumerate(frames):
        _check_frame(frame, index)
        height, width = frame.shape[:2]
        size = size or (width, height)
        if (width, height) != size:
            raise ValueError(f"frame {index} is {width}x{height} and the first is {size[0]}x{size[1]}; resize the frames to one size.")
        if max(size) > max_side:
            raise VideoError(f"{path} was not written: {width}x{height} is above the format's {max_side} pixels a side; resize the frames.")
        frame = frame.detach()[..., :3].to("cpu")
        if frame.is_floating_point():
            if buffer is None or buffer.shape != frame.shape:
                buffer = torch.empty(frame.shape)
            check_finite(torch.stack(frame.aminmax())[:, None], index, path)
            frame = to_bytes(frame, buffer)
        picture = np.ascontiguousarray(frame.expand(-1, -1, 3).numpy())
        padding = ((0, height % 2), (0, width % 2), (0, 0))
        yield np.pad(picture, padding, mode="edge") if even and (height % 2 or width % 2) else picture


def _check_frame(frame: torch.Tensor, index: int) -> None:
    known = frame.is_floating_point() or frame.dtype == torch.uint8
    if frame.ndim != 3 or frame.shape[-1] not in (1, 3, 4) or not frame.numel() or not known:
        raise ValueError(f"frame {index} is {tuple(frame.shape)} {frame.dtype}; frames are (height, width, 1, 3 or 4), floats 0..1 or uint8 0..255.")
