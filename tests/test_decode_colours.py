"""The colours of decoded frames against the arithmetic of ITU-T H.273 in float64."""

import av
import numpy as np
import pytest

from animatediff_turbo.video.colours import HIGH_DEFINITION
from animatediff_turbo.video.decode import decode

WEIGHTS = {1: (0.2126, 0.0722), 4: (0.30, 0.11), 5: (0.299, 0.114), 6: (0.299, 0.114), 7: (0.212, 0.087), 9: (0.2627, 0.0593)}
"""Of red and of blue in luma, by H.273's code of the matrix."""
NAMES = {1: "BT.709", 4: "FCC", 5: "BT.601", 6: "SMPTE 170M", 7: "SMPTE 240M", 9: "BT.2020"}
COLOURS = np.array([(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 0), (0, 255, 255), (255, 0, 255), (128, 128, 128), (255, 255, 255), (0, 0, 0), (200, 120, 80)])


def coded(colours, weights, full, bits):
    """Y, Cb and Cr of (n, 3) RGB of 0 to 255, as integers of so many bits."""
    red, green, blue = (colours / 255.0).T
    of_red, of_blue = weights
    luma = of_red * red + (1 - of_red - of_blue) * green + of_blue * blue
    chroma = np.stack([(blue - luma) / (2 * (1 - of_blue)), (red - luma) / (2 * (1 - of_red))])
    most, unit = 2**bits - 1, 2 ** (bits - 8)
    planes = [luma * most, *(chroma * most + 128 * unit)] if full else [(219 * luma + 16) * unit, *((224 * chroma + 128) * unit)]
    return np.clip(np.rint(planes), 0, most).astype(int).T


def written(path, tag, weights, full=False, pixels="yuv420p", size=64, curve=2):
    bits = 10 if "10" in pixels else 8
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=10, width=size, height=size, pix_fmt=pixels)
        context = stream.codec_context
        context.colorspace, context.color_range, context.color_trc, context.color_primaries = tag, 2 if full else 1, curve, 9 if tag == 9 else 2
        for values in coded(COLOURS, weights, full, bits):
            frame = av.VideoFrame(size, size, pixels)
            for plane, value in zip(frame.planes, values, strict=True):
                plane.update(np.full(plane.buffer_size, value, np.uint16 if bits > 8 else np.uint8).tobytes()[: plane.buffer_size])
            frame.colorspace, frame.color_range = tag, 2 if full else 1
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def distance(path):
    """The largest one from COLOURS, of 255."""
    frames = decode(path).frames
    middle = frames.shape[1] // 2
    return np.abs(frames[:, middle, middle].numpy() * 255 - COLOURS).max()


@pytest.mark.parametrize("full", [False, True], ids=["limited", "full"])
@pytest.mark.parametrize("pixels", ["yuv420p", "yuv444p", "yuv420p10le"])
@pytest.mark.parametrize("tag", WEIGHTS, ids=NAMES.get)
def test_a_tag_is_believed(tmp_path, tag, pixels, full):
    assert distance(written(tmp_path / "x.mkv", tag, WEIGHTS[tag], full, pixels)) <= 3  # the wrong matrix: 14 and more


@pytest.mark.parametrize("curve", [16, 18], ids=["PQ", "HLG"])
def test_the_matrix_of_an_hdr_video_is_that_of_its_tag(tmp_path, curve):
    assert distance(written(tmp_path / "x.mkv", 9, WEIGHTS[9], pixels="yuv420p10le", curve=curve)) <= 3


@pytest.mark.parametrize(("size", "meant"), [(64, 5), (HIGH_DEFINITION - 2, 5), (HIGH_DEFINITION, 1)])
def test_without_a_tag_the_height_says_it(tmp_path, size, meant):
    assert distance(written(tmp_path / "x.mkv", 2, WEIGHTS[meant], size=size)) <= 3
