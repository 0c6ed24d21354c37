"""H.264 by the graphics card, where one has an encoder and it works."""
import functools
import logging
from dataclasses import replace
from fractions import Fraction

import av
from av.codec.codec import UnknownCodecError

from .formats import Format

logger = logging.getLogger(__name__)

_NVENC = {"codec": "h264_nvenc", "crf_option": "cq", "presets": (), "options": {"rc": "vbr", "preset": "p4"}}
_SIDE, _FRAMES = 256, 3


def hardware(row: Format) -> Format:
    """row with the graphics card's codec; row itself, and a line in the log, where there is none for it.

    Something to ask for, never chosen unasked: its files differ from card to card and from driver to driver, its scale of quality is a neighbour of
    libx264's and not the same, and the processor encodes short clips while their next frames are decoded anyway. A card that refuses the first frame
    (it limits sizes, and clips at the same time) hands over to row.
    """
    if row.codec != "libx264":
        logger.warning("graphics cards do not write %s; %s is used.", row.suffix[1:], row.codec or "Pillow")
        return row
    if not answers(_NVENC["codec"]):
        logger.warning("no graphics card with an H.264 encoder answers; %s is used.", row.codec)
        return row
    return replace(row, fallback=row, **_NVENC)


@functools.cache  # once per process: opening a card's encoder takes a tenth of a second
def answers(codec: str) -> bool:
    """Whether the codec really encodes; PyAV lists it on machines without the card, too."""
    try:
        context = av.CodecContext.create(codec, "w")
        context.width = context.height = _SIDE
        context.pix_fmt, context.time_base = "yuv420p", Fraction(1, 8)
        packets = [packet for _ in range(_FRAMES) for packet in context.encode(av.VideoFrame(_SIDE, _SIDE, "yuv420p"))]
        return bool(packets + context.encode(None))
    except (UnknownCodecError, OSError, av.error.FFmpegError):
        return False
