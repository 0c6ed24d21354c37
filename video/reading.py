"""Opening a file to read it, and going to a place in it."""

import contextlib
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
from av.container import InputContainer

from .errors import VideoError

INDEXED = ("matroska,webm", "mov,mp4,m4a,3gp,3g2,mj2")
"""Containers, by FFmpeg's names, with an index by time. Others look for a place by guessing, or have times that start anew in the middle."""


UNTIMED = ("avi",)
"""Those that say when a frame is to be decoded and not when it is shown; FFmpeg's guess at that is the decoder's delay late."""


class MistimedError(Exception):
    """Read this way, a file's times are not those of its frames; another way may do better. Never leaves this folder."""


@contextlib.contextmanager
def opened(path: Path) -> Iterator[InputContainer]:
    """The file at path. Raises VideoError when it is missing, and for what the system or FFmpeg say of it inside the block."""
    if not path.is_file():
        raise VideoError(f"There is no video at {path}; choose another file.")
    with explain_reading(path), av.open(str(path), metadata_errors="replace") as container:
        yield container


@contextlib.contextmanager
def explain_reading(path: Path) -> Iterator[None]:
    """Turn an error of the system or of a codec inside the block into a VideoError about `path`."""
    try:
        yield
    except (OSError, av.error.FFmpegError) as error:
        if path.suffix.lower() == ".webp" and isinstance(error, av.error.InvalidDataError):
            raise VideoError(f"{path} could not be read: FFmpeg does not know animated WebP; write the clip as mp4, or choose another file.") from error
        reason = (error.strerror or str(error)).lower()
        raise VideoError(f"{path} could not be read ({reason}); it is broken or no video, choose another file.") from error


def video_stream(container: InputContainer, path: Path) -> av.VideoStream:
    """The stream of pictures, decoded by as many threads as its codec can use. Raises VideoError about path when there is none."""
    if not container.streams.video:
        raise VideoError(f"{path} holds no pictures; choose a video.")
    stream = container.streams.video[0]
    stream.thread_type = "AUTO"
    return stream


def seek(container: InputContainer, stream: av.VideoStream | av.AudioStream, seconds: Fraction) -> None:
    """Goes to a place at `seconds` or before, by the container's own clock, from where the stream can be decoded.

    Raises MistimedError for a container that has no index, or none for this place.
    """
    if container.format.name not in INDEXED:
        raise MistimedError
    try:
        container.seek(int(seconds / stream.time_base), stream=stream)
    except (OSError, av.error.FFmpegError) as error:
        raise MistimedError from error
