"""video.encode: what is decoded again is what went in, in order, at its time, in its colour, with its sound, in constant memory."""
import os
import subprocess
import sys
from fractions import Fraction

import av
import numpy as np
import pytest
import torch
from PIL import Image

from animatediff_turbo.video.audio import check_audio
from animatediff_turbo.video.encode import FORMATS, Encoded, check, encode
from animatediff_turbo.video.pictures import play_order, to_bytes

STREAMED = ["mp4", "webm"]
GREY_STEP = 25


def greys(count, height=32, width=32):
    """A batch whose frame i has the grey level 25 i of 255."""
    return torch.arange(count).mul(GREY_STEP / 255).view(-1, 1, 1, 1).expand(-1, height, width, 3)


def planes(path):
    """Y, U and V of every frame, as stored."""
    with av.open(str(path)) as container:
        return [[np.array(plane).reshape(plane.height, plane.line_size)[:, :plane.width] for plane in frame.planes]
                for frame in container.decode(video=0)]


def decoded_greys(path):
    """Which frame of `greys` each decoded frame is."""
    if path.suffix == ".webp":
        with Image.open(path) as image:
            levels = [np.asarray((image.seek(index), image.convert("L"))[1]).mean() for index in range(image.n_frames)]
    else:
        levels = [(y.mean() - 16) * 255 / 219 for y, _, _ in planes(path)]
    assert all(abs(level - round(level / GREY_STEP) * GREY_STEP) < 5 for level in levels)
    return [round(level / GREY_STEP) for level in levels]


@pytest.mark.parametrize("format", FORMATS)
def test_every_frame_comes_back_in_order(format, tmp_path):
    path = tmp_path / f"clip.{format}"
    assert encode(greys(9), path, 8, format) == Encoded(path, 32, 32, 9, Fraction(8))
    assert decoded_greys(path) == list(range(9))
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("as_type", [torch.float16, torch.bfloat16, torch.float64])
def test_a_generator_of_any_float_type_is_a_clip(format, as_type, tmp_path):
    path = tmp_path / f"clip.{format}"
    encode((frame.to(as_type) for frame in greys(3)), path, 8, format)
    assert decoded_greys(path) == [0, 1, 2]


@pytest.mark.parametrize("channels", [1, 4])
def test_grey_frames_are_spread_and_alpha_is_dropped(channels, tmp_path):
    frames = greys(3)[..., :1].repeat(1, 1, 1, channels)
    frames[..., 3:] = 0  # transparent
    encode(frames, tmp_path / "clip.mp4", 8, "mp4")
    assert decoded_greys(tmp_path / "clip.mp4") == [0, 1, 2]


@pytest.mark.parametrize("format", STREAMED)
@pytest.mark.parametrize("fps", [8, 7.5, 29.97, 240, Fraction(30000, 1001), 0.5])
def test_the_rate_is_exact_and_every_frame_starts_at_its_time(format, fps, tmp_path):
    path = tmp_path / f"clip.{format}"
    rate = encode(greys(10), path, fps, format).fps
    assert rate == Fraction(fps).limit_denominator(1001)
    with av.open(str(path)) as container:
        assert container.streams.video[0].average_rate == rate
        times = [frame.pts * frame.time_base for frame in container.decode(video=0)]
        assert abs(container.duration / 1e6 - 10 / rate) <= 0.002
    assert max(abs(time - index / rate) for index, time in enumerate(times)) <= Fraction(1, 1000)  # webm counts milliseconds


def test_webp_milliseconds_do_not_drift(tmp_path):
    encode(greys(10), tmp_path / "clip.webp", Fraction(30000, 1001), "webp")
    with Image.open(tmp_path / "clip.webp") as image:
        shown = [(image.seek(index), image.load(), image.info["duration"])[2] for index in range(10)]
    assert sum(shown) == round(10 * 1001 / 30) and set(shown) <= {33, 34}


@pytest.mark.parametrize("format", STREAMED)
@pytest.mark.parametrize("height, width", [(33, 47), (32, 47), (33, 48), (1, 1)])
def test_odd_sides_grow_by_a_copy_of_the_edge_pixels(format, height, width, tmp_path):
    frames = torch.zeros(2, height, width, 3)
    frames[:, -1] = frames[:, :, -1] = 1
    path = tmp_path / f"clip.{format}"
    done = encode(frames, path, 8, format, quality=100)
    assert (done.height, done.width) == (height + height % 2, width + width % 2)
    for luma, _, _ in planes(path):
        assert luma.shape == (done.height, done.width)
        assert luma[height - 1:].min() > 200 and luma[:, width - 1:].min() > 200
        assert luma[:height - 1, :width - 1].max(initial=0) < 60


def test_webp_keeps_an_odd_size_and_is_exact_at_quality_100(tmp_path):
    frames = torch.rand(3, 33, 47, 3, generator=torch.Generator().manual_seed(0))
    encode(frames, tmp_path / "clip.webp", 8, "webp", quality=100)
    with Image.open(tmp_path / "clip.webp") as image:
        for index, frame in enumerate(frames):
            image.seek(index)
            assert np.array_equal(np.asarray(image.convert("RGB")), frame.mul(255).round().byte().numpy())


@pytest.mark.parametrize("format", STREAMED)
def test_colours_are_bt709_in_limited_range_and_the_file_says_so(format, tmp_path):
    colours = [(1, 0, 0), (0, 1, 0), (0, 0, 1), (1, 1, 1), (0, 0, 0), (0.8, 0.5, 0.2), *[(grey / 8,) * 3 for grey in range(9)]]
    path = tmp_path / f"clip.{format}"
    encode(torch.tensor(colours).view(-1, 1, 1, 3).expand(-1, 64, 64, -1), path, 8, format, quality=90)
    for (red, green, blue), stored in zip(colours, planes(path), strict=True):
        luma = 0.2126 * red + 0.7152 * green + 0.0722 * blue  # ITU-R BT.709
        wanted = 16 + 219 * luma, 128 + 224 * (blue - luma) / 1.8556, 128 + 224 * (red - luma) / 1.5748
        assert [plane.mean() for plane in stored] == pytest.approx(wanted, abs=2.5)
    with av.open(str(path)) as container:
        context = container.streams.video[0].codec_context
        assert (context.colorspace, context.color_primaries, context.color_trc, context.color_range) == (1, 1, 1, 1)


def test_values_outside_the_range_are_clamped(tmp_path):
    encode(torch.tensor([-0.5, 1.5]).view(2, 1, 1, 1).expand(-1, 16, 16, 3), tmp_path / "clip.webp", 8, "webp", quality=100)
    with Image.open(tmp_path / "clip.webp") as image:
        assert [(image.seek(index), image.convert("L").getextrema())[1] for index in range(2)] == [(0, 0), (255, 255)]


@pytest.mark.parametrize("count, wanted", [(1, [0]), (2, [0, 1]), (3, [0, 1, 2, 1]), (4, [0, 1, 2, 3, 2, 1])])
def test_pingpong_repeats_neither_end(count, wanted):
    assert list(play_order(range(count), True, 0)) == wanted
    assert list(play_order(range(count), True, 2)) == wanted * 3


@pytest.mark.parametrize("format", FORMATS)
def test_pingpong_and_loops_are_played_out_in_streams_and_loops_are_stored_in_webp(format, tmp_path):
    path = tmp_path / f"clip.{format}"
    copies = 1 if format == "webp" else 3
    assert encode(greys(4), path, 8, format, pingpong=True, loop_count=2).frame_count == 6 * copies
    assert decoded_greys(path) == [0, 1, 2, 3, 2, 1] * copies
    if format == "webp":
        with Image.open(path) as image:
            assert image.info["loop"] == 2


@pytest.mark.parametrize("format", FORMATS)
def test_a_generator_plays_again_what_it_gave_once(format, tmp_path):
    encode(iter(greys(4)), tmp_path / "once.mp4", 8, "mp4", pingpong=True, loop_count=1)
    path = tmp_path / f"clip.{format}"
    encode((frame for frame in greys(4)), path, 8, format, pingpong=True, loop_count=1)
    assert decoded_greys(path) == [0, 1, 2, 3, 2, 1] * (1 if format == "webp" else 2)


def same_bytes(one, other):
    """A webm has a random number of its own in its head."""
    if one.suffix == ".webm":
        return all(np.array_equal(a, b) for first, second in zip(planes(one), planes(other), strict=True) for a, b in zip(first, second, strict=True))
    return one.read_bytes() == other.read_bytes()


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("height, width", [(33, 47), (32, 48)])
def test_uint8_frames_make_the_file_of_the_floats(format, channels, height, width, tmp_path):
    exact = torch.randint(0, 256, (5, height, width, channels), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    for name, frames in (("bytes", exact), ("floats", exact / 255), ("planes", exact.permute(0, 3, 1, 2).contiguous().permute(0, 2, 3, 1))):
        encode(frames, tmp_path / f"{name}.{format}", 8, format)
    assert same_bytes(tmp_path / f"bytes.{format}", tmp_path / f"floats.{format}")
    assert same_bytes(tmp_path / f"bytes.{format}", tmp_path / f"planes.{format}")


@pytest.mark.parametrize("as_type", [torch.float32, torch.float16, torch.bfloat16, torch.float64])
def test_bytes_are_the_nearest_and_halves_go_to_even(as_type):
    values = torch.cat([torch.linspace(-0.2, 1.2, 4001), (torch.arange(0, 255) + 0.5) / 255]).to(as_type)
    wanted = np.clip(np.rint(np.clip(values.to(torch.float32).numpy(), 0, 1) * np.float32(255)), 0, 255).astype(np.uint8)
    assert np.array_equal(to_bytes(values).numpy(), wanted)
    assert np.array_equal(to_bytes(values, torch.full(values.shape, torch.nan)).numpy(), wanted)


@pytest.mark.parametrize("format", FORMATS)
def test_the_same_frames_give_the_same_file_every_time(format, tmp_path):
    first, again = tmp_path / f"first.{format}", tmp_path / f"again.{format}"
    encode(greys(9), first, 8, format)
    for _ in range(5):
        encode(greys(9), again, 8, format)
        assert same_bytes(first, again)


def test_an_mp4_holds_nothing_of_what_was_in_memory(tmp_path):
    """Where the processor has AVX-512, libx264 reads memory that nobody wrote, in frames as small as these and as many clips as these."""
    path = tmp_path / "clip.mp4"
    job, generator, files = check(path, 8, "mp4"), torch.Generator().manual_seed(0), {}
    for width in (64, 72, 80):
        frames = torch.nn.functional.interpolate(torch.rand(9, 3, 16, width // 4, generator=generator), size=(64, width), mode="bicubic")
        pictures = to_bytes(frames.permute(0, 2, 3, 1)).contiguous().numpy()
        for _ in range(40):
            FORMATS["mp4"].write(iter(pictures), path, job)
            files.setdefault(width, set()).add(path.read_bytes())
    assert [len(found) for found in files.values()] == [1, 1, 1]


def test_small_frames_are_written_by_one_thread():
    assert FORMATS["mp4"].codec_options(80, 256, 256)["threads"] == "1" and "threads" not in FORMATS["mp4"].codec_options(80, 264, 256)
    assert "threads" not in FORMATS["webm"].codec_options(80, 64, 64)


def test_small_files_take_the_preset_that_makes_them_smaller():
    presets = [FORMATS["mp4"].codec_options(quality, 512, 512)["preset"] for quality in (0, 40, 41, 80, 100)]
    assert presets == ["faster", "faster", "superfast", "superfast", "superfast"]
    assert [FORMATS["mp4"].codec_options(quality, 512, 512)["crf"] for quality in (0, 79, 80, 100)] == ["47", "19.4", "19", "12"]


def sine(seconds, rate, channels=2):
    """440 Hz on the first channel, silence on the other."""
    wave = torch.sin(torch.arange(round(seconds * rate)) / rate * 2 * torch.pi * 440) * 0.5
    return {"waveform": torch.stack([wave, torch.zeros_like(wave)])[None, :channels], "sample_rate": rate}


def decoded_sound(path):
    with av.open(str(path)) as container:
        stream = container.streams.audio[0]
        frames = list(container.decode(stream))
        return np.concatenate([frame.to_ndarray() for frame in frames], axis=1), stream.rate, container.duration / 1e6


@pytest.mark.parametrize("format, rate, kept", [
    ("mp4", 22_050, 22_050), ("mp4", 44_100, 44_100), ("mp4", 192_000, 48_000), ("webm", 44_100, 48_000),
])
@pytest.mark.parametrize("channels", [1, 2])
def test_sound_keeps_its_pitch_and_channels_and_is_cut_with_the_clip(format, rate, kept, channels, tmp_path):
    path = tmp_path / f"clip.{format}"
    encode(greys(8), path, 8, format, audio=sine(3, rate, channels))
    sound, stored, duration = decoded_sound(path)
    assert stored == kept and len(sound) == channels
    assert abs(duration - 1) < 0.02 and abs(sound.shape[1] / stored - 1) < 1100 / stored  # AAC ends on a block of 1024 samples
    spectrum = np.abs(np.fft.rfft(sound[0, :stored * 9 // 10]))
    assert spectrum.argmax() / 0.9 == pytest.approx(440, abs=2)
    assert channels == 1 or np.abs(sound[1]).max() < 0.05 < np.abs(sound[0]).max()


@pytest.mark.parametrize("format", STREAMED)
def test_sound_plays_once_and_may_end_before_the_looped_clip(format, tmp_path):
    path = tmp_path / f"clip.{format}"
    encode(greys(8), path, 8, format, loop_count=2, audio=sine(1.5, 48_000))
    sound, rate, duration = decoded_sound(path)
    assert abs(duration - 3) < 0.02 and abs(sound.shape[1] / rate - 1.5) < 0.03
    assert len(decoded_greys(path)) == 24


@pytest.mark.parametrize("audio, reason", [
    ({"waveform": torch.zeros(1, 6, 100), "sample_rate": 8000}, "6 channels"),
    ({"waveform": torch.zeros(2, 1, 100), "sample_rate": 8000}, "2 clips"),
    ({"waveform": torch.full((1, 1, 100), torch.nan), "sample_rate": 8000}, "NaN"),
    ({"waveform": torch.zeros(100), "sample_rate": 8000}, "something else"),
])
def test_sound_a_video_cannot_hold_is_refused(audio, reason):
    with pytest.raises(ValueError, match=reason):
        check_audio(audio)


def test_an_empty_waveform_is_a_silent_clip(tmp_path):
    encode(greys(2), tmp_path / "clip.mp4", 8, "mp4", audio={"waveform": torch.zeros(1, 2, 0), "sample_rate": 44_100})
    with av.open(str(tmp_path / "clip.mp4")) as container:
        assert not container.streams.audio


# VmHWM after a reset, not ru_maxrss: that one starts at the parent's peak, which hides what is smaller
PEAKS = """
import sys, torch
from animatediff_turbo.video.encode import encode

def peak():
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmHWM"))

for count in (2, 16, 512):
    with open("/proc/self/clear_refs", "w") as reset:
        reset.write("5")
    encode((torch.full((256, 256, 3), i % 50 / 50) for i in range(count)), f"{sys.argv[1]}/{count}.{sys.argv[2]}", 24, sys.argv[2])
    print(peak())
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="peak memory is reset and read in /proc")
@pytest.mark.parametrize("format", STREAMED)
def test_512_frames_take_the_memory_of_16(format, tmp_path):
    command = [sys.executable, "-c", PEAKS, str(tmp_path), format]
    run = subprocess.run(command, env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}, capture_output=True, check=True, text=True)
    _, short, long = map(int, run.stdout.split())
    assert long - short <= 50 * 1024
