"""Which frames decode takes: each one once, or for each moment what a player shows, whatever a container says of times."""

import math
import random
from fractions import Fraction

import av
import pytest
import torch
from made_videos import CYCLE, STEP, add_pictures, counted, moving, numbers, pictures, true_times, write
from PIL import Image

from animatediff_turbo.video.decode import decode
from animatediff_turbo.video.encode import encode

MS, FINE = Fraction(1, 1000), Fraction(1, 90_000)
RATES = [8, 12, 24, 25, 29.97, Fraction(24000, 1001), Fraction(30000, 1001), 48, 50, Fraction(60000, 1001), 60, 90, 119.88, 240]


def levels(count):
    return (torch.arange(count) % CYCLE)[:, None, None, None].expand(-1, 16, 16, 3) * STEP / 255


def exact(rate):
    return Fraction(rate).limit_denominator(10_000)


@pytest.fixture(scope="module")
def own(tmp_path_factory):
    """own(count, rate, format): the pack's own file of so many frames."""
    folder, made = tmp_path_factory.mktemp("own"), {}

    def make(count, rate, format):
        key = count, rate, format
        if key not in made:
            made[key] = encode(levels(count), folder / f"{len(made)}.{format}", rate, format, 100).path
        return made[key]

    return make


@pytest.mark.parametrize("format", ["mp4", "webm"])
@pytest.mark.parametrize("rate", RATES, ids=str)
def test_what_was_written_is_read_frame_by_frame(own, format, rate):
    for count in (*range(1, 13), 16, 24, 29, 33, 47, 60):
        for asked in (0.0, float(exact(rate))):
            clip = decode(own(count, rate, format), asked)
            assert numbers(clip.frames) == counted(count), (count, asked)
            assert float(clip.fps) == pytest.approx(float(exact(rate)), rel=1e-9)


def test_a_webp_holds_every_frame_for_its_time(tmp_path):
    for count in (1, 2, 7, 24):
        with Image.open(encode(levels(count), tmp_path / "clip.webp", 24, "webp").path) as image:
            assert getattr(image, "n_frames", 1) == count


@pytest.mark.parametrize("format", ["mp4", "webm"])
@pytest.mark.parametrize("rate", RATES, ids=str)
def test_at_another_rate_each_moment_has_the_frame_of_exact_times(own, format, rate):
    for count in (1, 2, 5, 7, 15, 24, 31, 60):
        for asked in (5, 8, 12, 16, 24, 30, Fraction(30000, 1001)):
            moments = math.ceil(count / exact(rate) * asked)
            shown = [int(number / asked * exact(rate)) % CYCLE for number in range(moments)]
            assert numbers(decode(own(count, rate, format), float(asked)).frames) == shown, (count, asked)


@pytest.mark.parametrize("rate", [8, 10, 24, 25, 30, 60])
def test_a_length_is_meant_as_it_is_written(own, rate):
    """1.1 as a float is a little more than 1.1; at 30 frames per second that is no reason for a 34th."""
    path = own(4 * rate, rate, "mp4")
    for tenths in range(1, 40, 3):
        count = math.ceil(Fraction(tenths * rate, 10))
        assert len(decode(path, 0.0, 0.0, tenths / 10).frames) == len(decode(path, rate, 0.0, tenths / 10).frames) == count
        assert len(decode(path, rate, tenths / 10, 0.1 * 3).frames) == min(math.ceil(Fraction(3 * rate, 10)), math.ceil(4 * rate - Fraction(tenths * rate, 10)))


def jittered(count, most, base, seed):
    """Starts of frames at 30 per second, each up to `most` seconds away from its own."""
    shift = random.Random(seed)
    return [0, *(round((number / 30 + shift.uniform(-most, most)) / base) for number in range(1, count))]


def phone(count):
    """30 per second in the light and 24 in the dark."""
    starts = [0]
    while len(starts) < count:
        starts.append(starts[-1] + (3000 if len(starts) < count // 2 else 3750))
    return starts


@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
@pytest.mark.parametrize(
    ("starts", "base"),
    [(jittered(200, 0.0015, FINE, 1), FINE), (jittered(200, 0.009, MS, 2), MS), (phone(120), FINE), ([0, 40, 41, 43, 300, 301, 302, 340], MS)],
    ids=["jitter", "strong jitter", "phone", "bursts"],
)
def test_fps_0_takes_each_frame_once_at_their_average_rate(tmp_path, suffix, starts, base):
    path = write(tmp_path / f"variable.{suffix}", pictures(starts, base=base, rate=30))
    clip, times = decode(path), true_times(path)
    assert numbers(clip.frames) == counted(len(starts))
    shortest, longest = (len(starts) / float(times[-1] - times[0] + last) for last in (Fraction(1, 10), 0))
    assert shortest <= float(clip.fps) <= longest


def test_fps_0_of_a_part_starts_with_what_is_shown_and_has_the_rate_of_the_part(tmp_path):
    path = write(tmp_path / "phone.mp4", pictures(phone(120), base=FINE, rate=30))
    bright, dark = decode(path, 0.0, 0.51, 1.0), decode(path, 0.0, 2.5, 1.0)
    assert numbers(bright.frames) == [number % CYCLE for number in range(15, 45)] and bright.fps == 30
    assert len(dark.frames) == 24 and dark.fps == 24
    assert numbers(decode(path, 0.0, 0.0, 0.0, 7).frames) == list(range(7))


def test_the_frames_of_a_gif_come_once_whatever_their_delays(tmp_path):
    images = [Image.new("RGB", (16, 16), (number * STEP,) * 3) for number in range(10)]
    for delays, rate in (([50, 100, 200, 50, 100, 200, 50, 100, 200, 50], 10 / 1.1), ([70] * 10, 10 / 0.7), ([100], 10)):
        images[0].save(tmp_path / "x.gif", save_all=True, append_images=images[1 : len(delays)], duration=delays if len(delays) > 1 else delays[0])
        clip = decode(tmp_path / "x.gif")
        assert numbers(clip.frames) == list(range(len(delays)))
        assert float(clip.fps) == pytest.approx(rate)


def test_the_gap_of_a_file_shows_its_last_frame(tmp_path):
    path = write(tmp_path / "gap.mkv", pictures([0, 40, 80, 1080, 1120], base=MS))
    assert numbers(decode(path, 8.0).frames) == [0, *[2] * 8, 4]
    assert numbers(decode(path, 0.0, 0.5).frames) == [2, 3, 4]


@pytest.mark.parametrize(("fps", "expected"), [(0.0, list(range(25))), (25.0, list(range(25))), (8.0, [0, 3, 6, 9, 12, 15, 18, 21])])
def test_times_that_go_back_are_those_of_decoding(tmp_path, fps, expected):
    """AVI has no times of showing; of H.264 with frames that refer to later ones FFmpeg tells them in the order of decoding."""
    path = write(tmp_path / "b.avi", pictures(range(25), make=moving, between=3))
    times = true_times(path)
    assert times != sorted(times)
    clip = decode(path, fps)
    assert numbers(clip.frames) == expected and clip.fps == (fps or 25)


def repeated(path, number):
    """The file of `stamps` in milliseconds where one frame has the time of the one before."""
    stamps = [*range(0, 1000, 33), *range(2000, 14_000, 1000)]

    def track(container):
        packets = add_pictures(container, stamps, base=MS, rate=30, make=moving, between=3)
        shown = sorted((packet for packet in packets if packet.pts is not None), key=lambda packet: packet.pts)
        shown[number].pts = shown[number - 1].pts
        shown[number].dts = min(shown[number].dts, shown[number].pts)
        return packets

    return write(path, track), stamps


def test_one_time_that_is_said_twice_spoils_no_other(tmp_path):
    """The times of decoding are seconds earlier where frames are long."""
    path, stamps = repeated(tmp_path / "slip.mkv", 10)
    for fps in (1, 2):
        found = numbers(decode(path, fps).frames)
        moments = [1000 * each / fps for each in range(len(found))]
        assert found == [max(number for number, stamp in enumerate(stamps) if stamp <= moment) % CYCLE for moment in moments]
        assert found[-1] == (len(stamps) - 1) % CYCLE and len(found) >= 13 * fps
    assert len(decode(path).frames) == len(stamps)


def test_times_that_start_anew_go_on(tmp_path):
    """Two recordings in one transport stream."""
    parts = [write(tmp_path / f"{name}.ts", pictures(range(10))).read_bytes() for name in "ab"]
    (tmp_path / "both.ts").write_bytes(b"".join(parts))
    for fps in (0.0, 25.0):
        assert numbers(decode(tmp_path / "both.ts", fps).frames) == [*range(10)] * 2


def test_a_file_without_times_has_its_rate(tmp_path):
    path = write(tmp_path / "raw.h264", pictures(range(10)))
    with av.open(str(path)) as container:
        assert all(frame.pts is None for frame in container.decode(video=0))
    assert numbers(decode(path).frames) == list(range(10))


def test_a_rate_too_low_to_be_one_is_refused(own):
    with pytest.raises(ValueError, match="fps is 1e-05; use 0, or 0.0001 and more"):
        decode(own(2, 8, "mp4"), 1e-5)
