"""Files to frames: the right frames at the right moments, in the right colours, with their sound; broken files are one sentence."""

from dataclasses import replace
from fractions import Fraction

import av
import numpy as np
import pytest
import torch

from animatediff_turbo.video.decode import Limits, Measure, decode, measure
from animatediff_turbo.video.encode import encode
from animatediff_turbo.video.errors import VideoError

LEVELS = 10


def levels(count, size=(48, 64)):
    """Grey frames, each LEVELS brighter than the one before: which frame it was can be read from its brightness."""
    return torch.arange(count)[:, None, None, None].expand(-1, *size, 3) * LEVELS / 255


def numbers(clip):
    return (clip.frames.mean((1, 2, 3)) * 255 / LEVELS).round().int().tolist()


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    return encode(levels(16), tmp_path_factory.mktemp("video") / "16 frames.mp4", 8, "mp4", 100).path


def test_an_animated_webp_is_said_to_be_one(tmp_path):
    path = encode(levels(3), tmp_path / "x.webp", 8, "webp", 80).path
    with pytest.raises(VideoError, match=r"x\.webp could not be read: FFmpeg does not know animated WebP; write the clip as mp4"):
        decode(path)


@pytest.mark.parametrize("format", ["mp4", "webm"])
def test_what_was_written_is_read(tmp_path, format):
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(6, 3, 2, 3, generator=generator)
    frames = torch.nn.functional.interpolate(coarse, (48, 72), mode="bilinear").permute(0, 2, 3, 1)
    samples = torch.sin(torch.arange(48_000) / 48_000 * 440 * 6.28)[None, None].repeat(1, 2, 1)
    path = encode(frames, tmp_path / f"x.{format}", Fraction(12), format, 100, audio={"waveform": samples, "sample_rate": 48_000}).path
    clip = decode(path)
    assert clip.frames.shape == frames.shape and clip.frames.dtype == torch.float32 and clip.fps == 12
    assert float((clip.frames - frames).abs().mean()) < 0.01  # the matrix of BT.601 instead of BT.709 would be off by 0.03
    waveform = clip.audio["waveform"]
    assert clip.audio["sample_rate"] == 48_000 and waveform.shape == (1, 2, 24_000)
    spectrum = torch.fft.rfft(waveform[0, 0, :24_000]).abs()
    assert abs(int(spectrum.argmax()) * 2 - 440) <= 2


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, list(range(16))),
        ({"fps": 8}, list(range(16))),
        ({"fps": 4}, list(range(0, 16, 2))),
        ({"fps": 16}, [n // 2 for n in range(32)]),
        ({"fps": 3}, [0, 2, 5, 8, 10, 13]),
        ({"skip_seconds": 0.5}, list(range(4, 16))),
        ({"first_n_seconds": 1.0}, list(range(8))),
        ({"max_frames": 5}, list(range(5))),
        ({"fps": 4, "skip_seconds": 0.25, "first_n_seconds": 1, "max_frames": 3}, [2, 4, 6]),
        ({"first_n_seconds": 0.01}, [0]),
    ],
    ids=str,
)
def test_each_moment_shows_what_a_player_shows(file, options, expected):
    clip = decode(file, **options)
    assert numbers(clip) == expected and clip.fps == Fraction(options.get("fps", 8))


def test_frames_of_varying_length_are_shown_as_long_as_they_last(tmp_path):
    path = tmp_path / "variable.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=10, width=64, height=48, pix_fmt="bgr0")
        stream.codec_context.time_base = Fraction(1, 10)
        for number, start in enumerate((0, 1, 5, 6)):
            frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), number * LEVELS, np.uint8), format="rgb24").reformat(format="bgr0")
            frame.pts, frame.time_base = start, Fraction(1, 10)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    assert numbers(decode(path, fps=10))[:6] == [0, 1, 1, 1, 1, 2]


@pytest.mark.parametrize(("tag", "turns"), [((0, 1, -1, 0), -1), ((-1, 0, 0, -1), 2), ((0, -1, 1, 0), 1)], ids=["right", "upside down", "left"])
def test_a_video_held_sideways_stands_upright(tmp_path, tag, turns):
    """A phone's video: the matrix of the track says how it was held (ISO 14496-12, 8.3.2)."""
    picture = torch.zeros(2, 48, 64, 3)
    picture[:, :24, :32, 0] = 1
    path = encode(picture, tmp_path / "x.mp4", 8, "mp4", 100).path
    data = bytearray(path.read_bytes())
    matrix = data.index(b"tkhd") + 4 + 40  # behind version, times, id, duration, layer, group and volume
    a, b, c, d = (value * 0x10000 for value in tag)
    for place, value in zip((0, 1, 3, 4), (a, b, c, d), strict=True):
        data[matrix + 4 * place : matrix + 4 * place + 4] = value.to_bytes(4, "big", signed=True)
    path.write_bytes(data)
    expected = torch.rot90(picture, turns, (1, 2))
    clip = decode(path)
    assert clip.frames.shape == expected.shape and float((clip.frames - expected).abs().mean()) < 0.02


def test_a_silent_file_has_no_audio(file):
    assert decode(file).audio is None


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda path: None, "There is no video at"),
        (lambda path: path.write_bytes(b"no video at all"), "could not be read .* choose another file"),
        (lambda path: path.write_bytes(b""), "could not be read"),
        (lambda path: path.mkdir(), "There is no video at"),
    ],
    ids=["missing", "text", "empty", "folder"],
)
def test_what_is_no_video_is_one_sentence(tmp_path, make, sentence):
    path = tmp_path / "clip.mp4"
    make(path)
    with pytest.raises(VideoError, match=sentence) as error:
        decode(path)
    assert "clip.mp4" in str(error.value)


def test_a_cut_file_is_one_sentence(tmp_path, file):
    (tmp_path / "cut.mp4").write_bytes(file.read_bytes()[:600])
    with pytest.raises(VideoError, match="cut.mp4 could not be read"):
        decode(tmp_path / "cut.mp4")


def test_sound_alone_is_no_video(tmp_path):
    path = tmp_path / "sound.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=48_000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 4800), np.float32), format="fltp", layout="mono")
        frame.sample_rate, frame.pts = 48_000, 0
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    with pytest.raises(VideoError, match="holds no pictures"):
        decode(path)


def test_a_clip_that_starts_behind_the_end_is_refused(file):
    with pytest.raises(VideoError, match=r"ends before 2 s; use a smaller skip_seconds"):
        decode(file, skip_seconds=2)


@pytest.mark.parametrize("options", [{"fps": -1}, {"fps": float("nan")}, {"skip_seconds": -0.1}, {"first_n_seconds": float("inf")}, {"max_frames": -1}], ids=str)
def test_arguments_out_of_range_are_named(file, options):
    with pytest.raises(ValueError, match=f"{next(iter(options))} is .*; use 0 or more"):
        decode(file, **options)


LIMITS = Limits(4096, 256, 10**9, 60.0)


def test_a_measure_is_what_was_written_and_stops_at_its_limits(tmp_path):
    sound = {"waveform": torch.zeros(1, 1, 48_000 * 2), "sample_rate": 48_000}
    path = encode(torch.rand(20, 48, 64, 3), tmp_path / "a.mp4", 8, "mp4", audio=sound).path
    assert measure(path, LIMITS) == Measure(64, 48, 20)
    assert measure(path, replace(LIMITS, frames=5)) == Measure(64, 48, 6, "64x48 pixels, 6 frames or more")
    assert measure(path, replace(LIMITS, pixels=64 * 48 * 3)) == Measure(64, 48, 4, "64x48 pixels, 4 frames or more")
    assert measure(path, replace(LIMITS, side=60)) == Measure(64, 48, 0, "64x48 pixels")
    assert measure(path, replace(LIMITS, sound_seconds=1.0)).over == "more than 1 seconds of sound"
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(VideoError, match=r"a\.mp4 (could not be read|holds no pictures)"):
        measure(path, LIMITS)


def test_metadata_that_is_no_text_is_no_reason_to_fail(tmp_path):
    path = encode(levels(2), tmp_path / "a.mp4", 8, "mp4", metadata={"workflow": {"a": "XXXXXXXX"}}).path
    content = path.read_bytes()
    assert b"XXXXXXXX" in content
    path.write_bytes(content.replace(b"XXXXXXXX", b"\xff" * 8))
    assert len(decode(path).frames) == 2
