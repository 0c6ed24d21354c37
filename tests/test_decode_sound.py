"""The sound that decode gives: every sample at its time, whatever else is wrong with it; none of it outside of the part."""

import os
import subprocess
import sys
from fractions import Fraction

import numpy as np
import pytest
import torch
from made_videos import click, counted, heard, numbers, pictures, sound, write

from animatediff_turbo.video.decode import Limits, Measure, decode, measure
from animatediff_turbo.video.encode import encode

KINDS = {"mp4": ("libx264", "aac"), "mkv": ("libx264", "aac"), "webm": ("libvpx-vp9", "libopus"), "ts": ("libx264", "aac"), "mov": ("libx264", "pcm_s16le")}
FLASH = 2.0
"""The second at which one frame is white and a tone sounds."""
NEAR = 0.0015
"""Seconds: Matroska, webm and the edit lists of mp4 count milliseconds."""


def flashing(first):
    """Frames at 25 per second from `first` seconds on, black but for the one at FLASH."""
    return lambda number: np.full((16, 16, 3), 255 * (first + number / 25 == FLASH), np.uint8)


def made(path, first, silent, seconds=3):
    picture_codec, sound_codec = KINDS[path.suffix[1:]]
    stamps = range(first * 25, (first + seconds) * 25)
    return write(path, pictures(stamps, picture_codec, make=flashing(first)), sound([click(silent, seconds, FLASH)], sound_codec))


def seen(clip):
    return int(clip.frames.mean((1, 2, 3)).argmax()) / float(clip.fps)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("first", "silent"), [(0, 0), (0, 1), (1, 0)], ids=["together", "pictures first", "sound first"])
def test_what_happens_at_once_is_seen_and_heard_at_once(tmp_path, kind, first, silent):
    path = made(tmp_path / f"x.{kind}", first, silent)
    for skip in (0.0, 0.4):
        for fps in (0.0, 25.0):
            clip = decode(path, fps, skip)
            assert seen(clip) == pytest.approx(FLASH - first - skip, abs=1e-6)
            assert heard(clip.audio) == pytest.approx(FLASH - first - skip, abs=NEAR)


@pytest.mark.parametrize("codec", ["libx264", "mpeg4"])
@pytest.mark.parametrize("between", [0, 2])
def test_the_sound_of_an_avi_is_with_its_pictures(tmp_path, codec, between):
    """It says when frames are decoded, and FFmpeg's guess of when they are shown begins with the decoder's delay."""
    picture_track = pictures(range(75), codec, make=lambda number: flashing(0)(number).repeat(4, 0).repeat(4, 1), between=between)
    path = write(tmp_path / "x.avi", picture_track, sound([click(0, 3, FLASH)], "pcm_s16le"))
    for skip in (0.0, 0.4):
        clip = decode(path, 25.0, skip)
        assert seen(clip) == pytest.approx(FLASH - skip, abs=1e-6) and heard(clip.audio) == pytest.approx(FLASH - skip, abs=NEAR)


@pytest.mark.parametrize("format", ["mp4", "webm"])
@pytest.mark.parametrize("rate", [22_050, 44_100, 48_000])
def test_the_packs_own_sound_is_where_it_was(tmp_path, format, rate):
    _, samples = click(0, 3, FLASH, rate)
    path = encode(torch.zeros(75, 16, 16, 3), tmp_path / f"x.{format}", 25, format, audio={"waveform": torch.from_numpy(samples)[None], "sample_rate": rate}).path
    for skip in (0.0, 1.0, 1.5):
        assert heard(decode(path, 25, skip).audio) == pytest.approx(FLASH - skip, abs=NEAR)


def test_sound_that_starts_late_is_silent_before_and_sound_that_never_comes_is_none(tmp_path):
    path = made(tmp_path / "x.mov", 0, 1)
    waveform = decode(path).audio["waveform"]
    assert waveform.shape == (1, 1, 3 * 48_000) and not waveform[..., :48_000].any()
    assert decode(path, first_n_seconds=0.9).audio is None


@pytest.mark.parametrize("kind", ["mp4", "mkv", "ts"])
def test_a_gap_is_silent_and_what_follows_keeps_its_time(tmp_path, kind):
    codecs = KINDS[kind]
    tone = np.full((1, 48_000), 0.5) * np.sin(np.arange(48_000) * 0.05)
    path = write(tmp_path / f"x.{kind}", pictures(range(75), codecs[0]), sound([(0, tone), click(1.3, 1.5, FLASH)], codecs[1]))
    clip = decode(path)
    samples = clip.audio["waveform"][0, 0]
    assert float(samples[: 45_000].abs().max()) > 0.4 and float(samples[51_500:61_000].abs().max()) < 0.02
    assert heard({"waveform": samples[None, None, 60_000:], "sample_rate": 48_000}) == pytest.approx(FLASH - 60_000 / 48_000, abs=0.025)


@pytest.mark.parametrize(("kind", "most"), [("mp4", 0), ("mov", 0), ("mkv", 48)])
def test_the_sound_of_a_part_is_that_part_of_the_sound(tmp_path, kind, most):
    """Up to `most` samples away: Matroska's milliseconds."""
    codecs = KINDS[kind]
    moments = np.arange(48_000 * 12) / 48_000
    rising = np.stack([0.5 * np.sin(moments * (1000 + 500 * moments))] * 2)
    path = write(tmp_path / f"x.{kind}", pictures(range(300), codecs[0], options={"g": "50"}), sound([(0, rising)], codecs[1], layout="stereo"))
    whole, part = (decode(path, 25, skip).audio["waveform"][0] for skip in (0.0, 8.2))
    first, length = round(8.2 * 48_000), 48_000
    distances = [float((part[:, 1000 : 1000 + length] - whole[:, first + 1000 + shift :][:, :length]).abs().max()) for shift in range(-most, most + 1)]
    assert min(distances) == 0


def transport(path, start, layout, rate=48_000):
    channels = {"5.1": 6, "stereo": 2, "mono": 1}[layout]
    piece = click(start, 1, start + 0.5, rate, channels)
    write(path, pictures(range(start * 25, start * 25 + 25), "mpeg2video", options={}), sound([piece], "ac3", rate, layout))
    return path.read_bytes()


@pytest.mark.parametrize(("before", "after"), [(("5.1", 48_000), ("stereo", 48_000)), (("stereo", 48_000), ("5.1", 44_100)), (("mono", 44_100), ("stereo", 48_000))])
def test_sound_that_changes_its_format_goes_on(tmp_path, before, after):
    (tmp_path / "x.ts").write_bytes(transport(tmp_path / "a.ts", 0, *before) + transport(tmp_path / "b.ts", 1, *after))
    clip = decode(tmp_path / "x.ts", 25)
    waveform, rate = clip.audio["waveform"], clip.audio["sample_rate"]
    assert rate == before[1] and waveform.shape[1] == (1 if before[0] == "mono" else 2)
    for second in (0, 1):
        part = {"waveform": waveform[..., second * rate :], "sample_rate": rate}
        assert heard(part, 0.2) == pytest.approx(0.5, abs=0.05)  # a transport stream does not say how much silence a codec adds in front


@pytest.fixture
def unheard(tmp_path):
    """A webm whose sound is of a codec that nobody knows."""
    audio = {"waveform": torch.zeros(1, 2, 48_000), "sample_rate": 48_000}
    path = encode(torch.arange(8)[:, None, None, None].expand(-1, 16, 16, 3) * 10 / 255, tmp_path / "unheard.webm", 8, "webm", 100, audio=audio).path
    path.write_bytes(path.read_bytes().replace(b"A_OPUS", b"A_ZZZZ"))
    return path


def test_sound_that_nobody_knows_is_a_warning_and_pictures(unheard, caplog):
    clip = decode(unheard)
    assert numbers(clip.frames) == counted(8) and clip.audio is None
    assert "unheard.webm: its sound could not be read; the clip is silent (FFmpeg does not know its codec)" in caplog.text
    assert measure(unheard, Limits(4096, 256, 10**9, 60.0)) == Measure(16, 16, 8)


def test_a_broken_piece_of_sound_is_silent_and_a_warning(tmp_path, caplog):
    tone = 0.5 * np.sin(np.arange(48_000 * 3) * 0.05)[None]
    path = write(tmp_path / "broken.mkv", pictures(range(75)), sound([(0, tone)], "flac"))
    data = bytearray(path.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 400] = bytes(400)
    path.write_bytes(data)
    clip = decode(path, 25)
    samples = clip.audio["waveform"][0, 0]
    assert len(clip.frames) == 75 and float(samples[:48_000].abs().max()) > 0.4 and float(samples[-24_000:].abs().max()) > 0.4
    assert "broken.mkv: its sound could not be read everywhere" in caplog.text


PEAK = """
import sys
from animatediff_turbo.video.decode import decode
def peak():
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmHWM"))
for name, first in (("short", 0.0), ("long", 0.0), ("long", 500.0)):
    clip = decode(f"{sys.argv[1]}/{name}.{sys.argv[2]}", 8, first, 3)
    assert clip.frames.shape[0] == 24 and clip.audio["waveform"].shape[2] == 3 * 48_000, clip.audio["waveform"].shape
    print(peak())
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="peak memory is read in /proc")
@pytest.mark.parametrize("kind", ["mp4", "ts"])
def test_three_seconds_of_ten_minutes_take_the_memory_of_three_seconds_of_five(tmp_path, kind):
    for name, seconds in (("short", 5), ("long", 600)):
        silence = [(second, np.zeros((2, 48_000))) for second in range(seconds)]
        write(tmp_path / f"{name}.{kind}", pictures(range(seconds), base=Fraction(1), rate=1), sound(silence, "aac", layout="stereo"))
    command = [sys.executable, "-c", PEAK, str(tmp_path), kind]
    run = subprocess.run(command, env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}, capture_output=True, check=False, text=True)
    assert run.returncode == 0, run.stderr
    short, start, later = map(int, run.stdout.split())
    assert max(start, later) - short <= 30 * 1024  # all of it are 220 MiB
