"""Video to video on the command line: what is read, how it is scaled, what comes out."""

import json

import av
import pytest
import torch

from animatediff_turbo.__main__ import main
from animatediff_turbo.headless import source
from animatediff_turbo.headless.tiny import score, world
from animatediff_turbo.video.decode import decode
from animatediff_turbo.video.encode import encode

SCENE = world.Scene("circle", "red", "right", "black", 64, 50)
BLUE = "a blue circle moving right on a black background"


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    """Two seconds at 24 fps with a tone of 440 Hz."""
    sound = {"waveform": torch.sin(torch.arange(96_000) / 48_000 * 440 * 6.28)[None, None], "sample_rate": 48_000}
    path = tmp_path_factory.mktemp("source") / "red circle.mp4"
    return encode(world.render(SCENE).repeat_interleave(3, 0), path, 24, "mp4", 100, audio=sound).path


def of(height, width):
    return source.Source(torch.rand(2, height, width, 3), None, "")


@pytest.mark.parametrize(
    ("own", "asked", "size"),
    [
        ((1080, 1920), (None, None), (680, 384)),  # about 512 x 512 pixels at 16:9
        ((1920, 1080), (None, None), (384, 680)),
        ((128, 128), (None, None), (512, 512)),
        ((1080, 1920), (960, None), (960, 544)),
        ((1080, 1920), (None, 544), (968, 544)),
        ((1080, 1920), (512, 768), (512, 768)),
        ((10, 2000), (None, None), (7240, 40)),
        ((128, 128), (0, None), (0, 8)),
    ],
)
def test_it_keeps_its_shape_unless_both_sides_are_given(own, asked, size):
    assert of(*own).size(512, *asked) == size


@pytest.mark.parametrize("size", [(64, 64), (96, 40), (40, 96), (200, 104)])
def test_fitted_frames_cover_the_clip_from_the_middle(size):
    rows, columns = torch.linspace(0, 1, 60)[:, None], torch.linspace(0, 1, 80)
    video = source.Source(torch.stack([(rows + 0 * columns), (columns + 0 * rows), torch.zeros(60, 80)], -1)[None], None, "")
    fitted = video.fitted(*size)
    assert tuple(fitted.shape) == video.shape(*size) == (1, size[1], size[0], 3)
    assert 0 <= float(fitted.min()) and float(fitted.max()) <= 1
    assert fitted[..., :2].mean((0, 1, 2)).tolist() == pytest.approx([0.5, 0.5], abs=0.01)  # the middle stays the middle
    scale = max(size[0] / 80, size[1] / 60)
    assert float(fitted[0, 5, -5, 1] - fitted[0, 5, 4, 1]) == pytest.approx((size[0] - 9) / scale / 79, abs=0.02)


def test_the_same_size_is_the_same_frames():
    video = of(24, 32)
    assert video.fitted(32, 24) is video.frames


def test_the_motion_and_the_sound_stay_and_the_colour_changes(file, tmp_path):
    out = tmp_path / "blue.mp4"
    assert main([BLUE, "--video", str(file), "--strength", "0.75", "-o", str(out), "--seed", "3", "--quiet"]) == 0
    clip = decode(out)
    seen = score.judge(clip.frames)
    assert (seen.colour, seen.direction, seen.shape, clip.fps, len(clip.frames)) == ("blue", "right", "circle", 8, 16)
    spectrum = torch.fft.rfft(clip.audio["waveform"][0, 0]).abs()
    assert abs(float(spectrum.argmax()) * clip.audio["sample_rate"] / clip.audio["waveform"].shape[-1] - 440) < 3
    with av.open(str(out)) as container:
        assert json.loads(container.metadata["animatediff_turbo"])["strength"] == 0.75


def test_a_lower_strength_keeps_more(file, tmp_path):
    distances = []
    for strength in ("0.25", "0.6", "1"):
        out = tmp_path / "out.mp4"
        assert main([BLUE, "--video", str(file), "--strength", strength, "-o", str(out), "--seed", "3", "--quiet"]) == 0
        distances.append(float((decode(out).frames - world.render(SCENE)).abs().mean()))
    assert distances[0] < 0.9 * distances[1] < 0.81 * distances[2], distances


def test_length_rate_and_size_are_what_is_asked_for(file, tmp_path):
    out = tmp_path / "out.webm"
    options = ["--fps", "4", "--skip-seconds", "0.5", "--first-n-seconds", "1", "--width", "64", "--num-inference-steps", "1", "--quiet"]
    assert main([BLUE, "--video", str(file), "-o", str(out), *options]) == 0
    clip = decode(out)
    assert tuple(clip.frames.shape) == (4, 64, 64, 3) and clip.fps == 4
    assert main([BLUE, "--video", str(file), "-o", str(out), "--num-frames", "3", *options[-3:]]) == 0
    assert len(decode(out).frames) == 3


def test_webp_has_no_sound_and_says_nothing(file, tmp_path, capsys):
    assert main([BLUE, "--video", str(file), "-o", str(tmp_path / "a.webp"), "--num-frames", "2", "--num-inference-steps", "1", "--quiet"]) == 0
    assert capsys.readouterr().err == ""


def test_a_list_restyles_one_video_and_another_video_is_another_clip(file, tmp_path, capsys):
    prompts, out = tmp_path / "list.jsonl", tmp_path / "clips"
    prompts.write_text("\n".join(map(json.dumps, [{"prompt": "a blue circle"}, {"prompt": "a white star", "strength": 0.5}])))
    options = ["--num-frames", "2", "--num-inference-steps", "1", "--quiet"]
    arguments = ["--prompts", str(prompts), "-o", str(out), "--video", str(file), *options]
    assert main(arguments) == 0 and main(arguments) == 0
    assert len(list(out.iterdir())) == 2
    other = encode(world.render(SCENE), tmp_path / "other.mp4", 8, "mp4", 90).path
    assert main(["--prompts", str(prompts), "-o", str(out), "--video", str(other), *options]) == 0
    assert len(list(out.iterdir())) == 4
    capsys.readouterr()
    prompts.write_text(json.dumps({"prompt": "a", "num_frames": 8}))
    assert main(arguments) == 1
    assert "line 1: The video has frames of (2, 128, 128, 3)" in capsys.readouterr().err


def test_a_line_with_strength_and_no_video_is_one_sentence(tmp_path, capsys):
    prompts = tmp_path / "list.jsonl"
    prompts.write_text(json.dumps({"prompt": "a", "strength": 0.5}))
    assert main(["--prompts", str(prompts), "-o", str(tmp_path / "out"), "--quiet"]) == 1
    assert "line 1: strength is 0.5, but there is no video" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_video_longer_than_the_adapter_knows_is_one_sentence(file, tmp_path, capsys):
    assert main([BLUE, "--video", str(file), "-o", str(tmp_path / "a.mp4"), "--fps", "16", "--first-n-seconds", "0", "--quiet"]) == 0
    capsys.readouterr()
    assert main([BLUE, "--video", str(file), "-o", str(tmp_path / "b.mp4"), "--fps", "24", "--first-n-seconds", "0", "--quiet"]) == 1
    assert "num_frames is 48; Tiny Turbo knows 1 to 32 frames" in capsys.readouterr().err
