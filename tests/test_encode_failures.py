"""video.encode: whatever goes wrong, one sentence says so and no file is left."""
import dataclasses
import os
import subprocess
import sys

import pytest
import torch

from animatediff_turbo.video.encode import FORMATS, encode
from animatediff_turbo.video.errors import VideoError

FRAMES = torch.rand(8, 32, 32, 3, generator=torch.Generator().manual_seed(0))
SILENCE = {"waveform": torch.zeros(1, 1, 8000), "sample_rate": 8000}

FULL_DISK = """
import resource, sys, torch
from animatediff_turbo.video.encode import encode
from animatediff_turbo.video.errors import VideoError
folder = sys.argv[1]
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
# The last one has room for the pictures, and fails where the workflow is moved to the front.
for name, size, letters in (("a.mp4", 128, 0), ("a.webm", 128, 0), ("a.webp", 128, 0), ("b.mp4", 16, 150_000)):
    try:
        encode(torch.rand(20, size, size, 3), f"{folder}/{name}", 8, name[2:], metadata={"workflow": {"text": "x" * letters}})
    except VideoError as error:
        print(error)
"""

READ_ONLY = """
import os, sys, torch
from animatediff_turbo.video.encode import encode
from animatediff_turbo.video.errors import VideoError
os.geteuid() or os.seteuid(65534)  # root may write everywhere
def frames():
    raise AssertionError("a frame was made for a folder that cannot be written")
    yield
for name in ("a.mp4", "a.webm", "a.webp"):
    try:
        encode(frames(), f"{sys.argv[1]}/{name}", 8, name[2:])
    except VideoError as error:
        print(error)
"""

QUIET = """
import sys, torch
from animatediff_turbo.video.encode import encode
for format in ("mp4", "webm", "webp"):
    audio = None if format == "webp" else {"waveform": torch.zeros(1, 1, 8000), "sample_rate": 8000}
    encode(torch.rand(12, 33, 35, 3), f"{sys.argv[1]}/clip.{format}", 29.97, format, audio=audio, metadata={"workflow": {}})
"""


def python(script, *arguments):
    command = [sys.executable, "-c", script, *map(str, arguments)]
    run = subprocess.run(command, env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}, capture_output=True, check=False, text=True)
    assert run.returncode == 0 and run.stderr == "", run.stderr
    return run.stdout.strip()


def is_one_sentence_about(text, path):
    return str(path) in text and text.endswith(".") and "; " in text and "\n" not in text


@pytest.mark.skipif(sys.platform == "win32", reason="file size limits are POSIX")
def test_a_full_disk_is_one_sentence_and_leaves_nothing(tmp_path):
    said = python(FULL_DISK, tmp_path).splitlines()
    for line, name in zip(said, ("a.mp4", "a.webm", "a.webp", "b.mp4"), strict=True):
        assert is_one_sentence_about(line, tmp_path / name) and "free some disk space" in line
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(sys.platform == "win32", reason="folder permissions are POSIX")
def test_a_read_only_folder_is_found_before_the_first_frame(tmp_path):
    folder = tmp_path / "folder"
    folder.mkdir(mode=0o555)
    said = python(READ_ONLY, folder).splitlines()
    for line, name in zip(said, ("a.mp4", "a.webm", "a.webp"), strict=True):
        assert is_one_sentence_about(line, folder / name) and "choose a folder you may write to" in line
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("format", FORMATS)
def test_a_missing_folder_is_named_with_the_fix(format, tmp_path):
    path = tmp_path / "missing" / f"clip.{format}"
    with pytest.raises(VideoError, match="create the folder first") as error:
        encode(FRAMES, path, 8, format)
    assert is_one_sentence_about(str(error.value), path)


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("letter", ["x", "\u732b"])
def test_a_name_that_is_too_long_is_found_before_the_first_frame(format, letter, tmp_path):
    def frames():
        raise AssertionError("a frame was made for a file that cannot be written")
        yield

    path = tmp_path / f"{letter * 255}.{format}"
    with pytest.raises(VideoError, match="choose a shorter name") as error:
        encode(frames(), path, 8, format)
    assert is_one_sentence_about(str(error.value), path) and list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("format", FORMATS)
def test_the_longest_name_is_written(format, tmp_path):
    path = tmp_path / f"{'x' * (254 - len(format))}.{format}"
    assert encode(FRAMES, path, 8, format).path == path and len(path.name) == 255
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("raised", [RuntimeError("my own"), OSError("my own"), KeyboardInterrupt("my own")])
def test_what_the_frames_raise_comes_through_unchanged_and_leaves_the_old_file(format, raised, tmp_path):
    def frames():
        yield from FRAMES
        raise raised

    path = tmp_path / f"clip.{format}"
    path.write_bytes(b"old")
    with pytest.raises(type(raised)) as error:
        encode(frames(), path, 8, format)
    assert error.value is raised
    assert [file.read_bytes() for file in tmp_path.iterdir()] == [b"old"]
    encode(FRAMES, path, 8, format)
    assert path.stat().st_size > 100


@pytest.mark.parametrize("change, codec", [({"codec": "h2640"}, "h2640"), ({"audio_codec": "aacc"}, "aacc")])
def test_a_codec_this_pyav_lacks_is_named(change, codec, tmp_path):
    with pytest.raises(VideoError, match=f"no codec {codec}; choose another format or reinstall av") as error:
        encode(FRAMES, tmp_path / "clip.mp4", 8, dataclasses.replace(FORMATS["mp4"], **change), audio=SILENCE)
    assert is_one_sentence_about(str(error.value), tmp_path / "clip.mp4")
    assert list(tmp_path.iterdir()) == []


def test_what_a_codec_refuses_is_a_sentence_about_the_file(tmp_path):
    row = dataclasses.replace(FORMATS["mp4"], options={"preset": "no such preset"})
    with pytest.raises(VideoError) as error:
        encode(FRAMES, tmp_path / "clip.mp4", 8, row)
    assert is_one_sentence_about(str(error.value), tmp_path / "clip.mp4")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_in_the_place_of_the_file_is_a_sentence(tmp_path):
    (tmp_path / "clip.mp4").mkdir()
    with pytest.raises(VideoError, match="clip.mp4 could not be written"):
        encode(FRAMES, tmp_path / "clip.mp4", 8, "mp4")
    assert [file.name for file in tmp_path.iterdir()] == ["clip.mp4"]


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_a_frame_of_nan_is_refused_with_its_number(format, bad, tmp_path):
    frames = FRAMES.clone()
    frames[5, 3, 3, 1] = bad
    with pytest.raises(VideoError, match="frame 5 holds NaN or infinite values") as error:
        encode(frames, tmp_path / f"clip.{format}", 8, format)
    assert is_one_sentence_about(str(error.value), tmp_path / f"clip.{format}")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("frames, reason", [
    (FRAMES[:0], "no frames"),
    ([], "no frames"),
    ([torch.zeros(8, 8, 3), torch.zeros(8, 8, 3), torch.zeros(8, 10, 3)], "frame 2 is 10x8 and the first is 8x8"),
    ([torch.zeros(8, 8, 2)], r"frame 0 is \(8, 8, 2\)"),
    ([torch.zeros(1, 8, 8, 3)], r"frame 0 is \(1, 8, 8, 3\)"),
    ([torch.zeros(0, 8, 3)], r"frame 0 is \(0, 8, 3\)"),
    ([torch.zeros(8, 8, 3, dtype=torch.int64)], "int64"),
])
@pytest.mark.parametrize("format", FORMATS)
def test_frames_that_make_no_clip_are_refused(frames, reason, format, tmp_path):
    with pytest.raises(ValueError, match=reason):
        encode(frames, tmp_path / f"clip.{format}", 8, format)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("format", FORMATS)
def test_a_side_above_the_format_is_refused(format, tmp_path):
    side = FORMATS[format].max_side + 1
    with pytest.raises(VideoError, match=f"{side}x2 is above the format's {side - 1} pixels a side"):
        encode([torch.zeros(2, side, 3)], tmp_path / f"clip.{format}", 8, format)


@pytest.mark.parametrize("change, reason", [
    ({"fps": 0}, "fps is 0"), ({"fps": -1}, "fps is -1"), ({"fps": float("nan")}, "fps is nan"), ({"fps": float("inf")}, "fps is inf"),
    ({"fps": 1e-9}, "fps is 1e-09"), ({"fps": 241}, "up to 240"), ({"path": "clip.webp", "format": "webp", "fps": 91}, "up to 90"),
    ({"quality": 101}, "quality is 101"), ({"quality": float("nan")}, "quality is nan"),
    ({"loop_count": -1}, "loop_count is -1"), ({"loop_count": 2**16}, "0 to 65535"),
    ({"format": "gif"}, "choose one of mp4, webm, webp"), ({"format": "webm"}, "is to be a .webm file"),
    ({"path": "clip.webp", "format": "webp", "audio": SILENCE}, "webp has no sound; choose mp4 or webm"),
])
def test_arguments_out_of_range_are_refused_with_the_range(change, reason, tmp_path):
    arguments = {"path": "clip.mp4", "fps": 8, "format": "mp4"} | change
    with pytest.raises(ValueError, match=reason):
        encode(FRAMES, **arguments | {"path": tmp_path / arguments["path"]})
    assert list(tmp_path.iterdir()) == []


def test_encoders_say_nothing_on_the_console(tmp_path):
    assert python(QUIET, tmp_path) == ""
    assert len(list(tmp_path.iterdir())) == 3
