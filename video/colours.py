"""Decoded frames as a player shows them."""

import av
import numpy as np
from av.video.reformatter import ColorRange, VideoReformatter

UNTAGGED, HIGH_DEFINITION = 2, 720
"""ITU-T H.273's code for colours that a file says nothing of, and the height from which players take them for BT.709."""
BT709, BT601 = 1, 5
MATRICES = {1: 1, 4: 4, 5: 5, 6: 5, 7: 7, 9: 9, 10: 9}
"""swscale's numbers of the matrices, by H.273's: BT.709, FCC, BT.601 (twice), SMPTE 240M, BT.2020 (twice). Not every PyAV has names for all of them."""


def upright(frame: av.VideoFrame, reformatter: VideoReformatter) -> np.ndarray:
    """(h, w, 3) uint8, full range RGB by the matrix of the frame's tag, turned as the file says.

    Only the matrix and the range are undone: the picture of an HDR video keeps its curve and its primaries.
    """
    coming = ColorRange.JPEG if int(frame.color_range) == ColorRange.JPEG.value else ColorRange.MPEG
    matrix = _matrix(frame)
    other = BT709 if matrix == BT601 else BT601  # RGB has none; older PyAV takes equal ones for nothing to do
    colours = {} if frame.format.is_rgb else {"src_colorspace": matrix, "dst_colorspace": other, "src_color_range": coming, "dst_color_range": ColorRange.JPEG}
    picture = reformatter.reformat(frame, format="rgb24", **colours).to_ndarray()
    return np.rot90(picture, (frame.rotation // 90) % 4)


def _matrix(frame: av.VideoFrame) -> int:
    tag = int(frame.colorspace)
    return MATRICES.get(tag, BT709 if tag == UNTAGGED and frame.height >= HIGH_DEFINITION else BT601)
