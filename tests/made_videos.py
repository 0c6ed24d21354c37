"""Small files for the tests of video.decode, written by PyAV alone: which frame one is can be read from its brightness, and when a click sounds is known."""

from fractions import Fraction

import av
import numpy as np

STEP, CYCLE = 10, 25
"""Grey levels from one frame to the next, and after how many frames they start anew."""
LOSSLESS = {"crf": "5"}


def picture(number):
    """A frame: its brightness says its number."""
    return np.full((16, 16, 3), number % CYCLE * STEP, np.uint8)


def moving(number):
    """As `picture`, with a pattern that moves, and large enough for frames between two others."""
    result = np.full((48, 64, 3), number % CYCLE * STEP, np.uint8)
    result[:16, number % 32 : number % 32 + 16] = 255 - result[0, 0]
    return result


def numbers(frames):
    """Which frames these are, of (f, h, w, 3) floats or a list of uint8 pictures, counted up to CYCLE."""
    levels = [float(np.median(np.asarray(frame))) for frame in frames]
    scale = 255 if max(levels) <= 1 else 1
    return [round(level * scale / STEP) for level in levels]


def counted(count):
    return [number % CYCLE for number in range(count)]


def add_pictures(container, stamps, codec="libx264", base=Fraction(1, 25), rate=25, pixels="yuv420p", options=None, make=picture, between=0):
    """Packets of a video whose frame i starts at stamps[i] * base seconds; up to `between` frames in a row refer to a later one."""
    height, width = make(0).shape[:2]
    stream = container.add_stream(codec, rate=rate, width=width, height=height, pix_fmt=pixels, options=LOSSLESS if options is None else options)
    stream.codec_context.time_base, stream.codec_context.max_b_frames = base, between
    packets = []
    for number, stamp in enumerate(stamps):
        frame = av.VideoFrame.from_ndarray(make(number), format="rgb24").reformat(format=pixels)
        frame.pts, frame.time_base = stamp, base
        packets += stream.encode(frame)
    return packets + stream.encode(None)


def add_sound(container, pieces, codec="aac", rate=48_000, layout="mono"):
    """Packets of a sound: pieces of samples (channels, n) by the second at which they start."""
    stream = container.add_stream(codec, rate=rate, layout=layout)
    packets = []
    for start, samples in pieces:
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(samples, np.float32), format="fltp", layout=layout)
        frame.sample_rate, frame.pts, frame.time_base = rate, round(start * rate), Fraction(1, rate)
        packets += stream.encode(frame)
    return packets + stream.encode(None)


def write(path, *tracks, options=None, format=None):
    """A file of tracks: functions from a container to packets, which are put in the order of their times."""
    with av.open(str(path), "w", format=format, container_options=options or {}) as container:
        packets = [packet for track in tracks for packet in track(container) if packet.dts is not None]
        container.mux(sorted(packets, key=lambda packet: packet.dts * packet.time_base))
    return path


def pictures(*arguments, **options):
    """A track of `add_pictures`."""
    return lambda container: add_pictures(container, *arguments, **options)


def sound(*arguments, **options):
    """A track of `add_sound`."""
    return lambda container: add_sound(container, *arguments, **options)


def click(start, seconds, at, rate=48_000, channels=1):
    """A piece of silence from start on, with a short loud tone at the moment `at`."""
    samples = np.zeros((channels, round(seconds * rate)), np.float32)
    first = round((at - start) * rate)
    if 0 <= first < samples.shape[1]:
        samples[:, first : first + 200] = 0.9 * np.sin(np.arange(200) * 0.5)[: samples.shape[1] - first]
    return start, samples


def heard(audio, loud=0.3):
    """The second at which it becomes loud, None when it does not."""
    found = (audio["waveform"][0, 0].abs() > loud).nonzero()
    return float(found[0]) / audio["sample_rate"] if len(found) else None


def true_times(path):
    """Seconds at which PyAV alone says that the frames of a file start."""
    with av.open(str(path)) as container:
        return [frame.pts * frame.time_base for frame in container.decode(video=0)]
