"""Video to video on the tiny model: the motion stays, the colour changes, the sound comes through."""

import av
import pytest
import torch
from graphs import node, turbo
from safetensors.torch import load_file
from test_tiny import tiny_graph

from animatediff_turbo.headless import source
from animatediff_turbo.headless.pipeline import Request
from animatediff_turbo.headless.render import Models, load
from animatediff_turbo.headless.tiny import score, world
from animatediff_turbo.video.decode import decode
from animatediff_turbo.video.encode import encode

SCENE = world.Scene("circle", "red", "right", "black", 64, 50)
SOUND = {"waveform": torch.sin(torch.arange(96_000) / 48_000 * 440 * 6.28)[None, None], "sample_rate": 48_000}


@pytest.fixture(scope="module")
def file(comfy):
    """Two seconds at 24 fps, every frame of the clip three times, in a codec that ComfyUI itself does not write."""
    folder = comfy.base / "input"
    folder.mkdir(parents=True, exist_ok=True)
    frames = world.render(SCENE).repeat_interleave(3, 0)
    return encode(frames, folder / "red circle.webm", 24, "webm", 100, audio=SOUND).path


def graph(path, prompt, denoise, **load):
    result = tiny_graph(prompt, "", path, 3)
    result["5"] = turbo("LoadVideoFrames", file="red circle.webm", **{"fps": 8.0, "first_n_seconds": 3.0, "skip_seconds": 0.0, "max_frames": 0} | load)
    result["20"] = node("VAEEncode", pixels=["5", 0], vae=["1", 2])
    result["6"]["inputs"] |= {"latent": ["20", 0], "denoise": denoise}
    combined = {"format": "mp4", "quality": 90, "pingpong": False, "loop_count": 0, "filename_prefix": "v2v", "save": True}
    result["21"] = turbo("CombineVideo", images=["7", 0], audio=["5", 1], fps=["5", 2], **combined)
    return result


def test_the_motion_stays_and_the_colour_changes(comfy, file, tmp_path):
    path = tmp_path / "frames.safetensors"
    run = comfy.run(graph(path, "a blue circle moving right on a black background", 0.75))
    assert not run.error and run.texts["5"] == ["red circle.webm: 16 frames of 128x128 at 8 fps, with sound."]
    clip = load_file(path)["frames"]
    seen = score.judge(clip)
    assert (seen.colour, seen.direction, seen.shape) == ("blue", "right", "circle") and seen.r2 > 0.95
    truth = world.render(SCENE)
    centres = [score._centroids((each - each[0, 0, 0]).norm(dim=-1) > 0.4) for each in (clip, truth)]
    assert float((centres[0] - centres[1]).norm(dim=1).mean()) < 10  # pixels of 128; the circle is 36 wide
    (video,) = run.output("21")["images"]
    written = decode(comfy.base / "output" / video["subfolder"] / video["filename"])
    assert written.fps == 8 and len(written.frames) == 16
    spectrum = torch.fft.rfft(written.audio["waveform"][0, 0]).abs()
    assert abs(float(spectrum.argmax()) * written.audio["sample_rate"] / written.audio["waveform"].shape[-1] - 440) < 3


@pytest.mark.parametrize(("denoise", "guidance"), [(0.7, 1.0), (0.3, 2.0), (1.0, 1.0)])
def test_pixels_equal_the_command_lines(comfy, file, tmp_path, denoise, guidance):
    path = tmp_path / "frames.safetensors"
    asked = graph(path, "a blue circle moving right on a black background", denoise)
    asked["6"]["inputs"] |= {"guidance": guidance}
    assert not comfy.run(asked).error
    video = source.read(file, 8, 0.0, 3.0, 0)
    request = Request("a blue circle moving right on a black background", "", 128, 128, 16, 0, guidance, 3, denoise)
    expected = load(Models(device="cpu"))(request, source=video.fitted(128, 128))
    assert float((load_file(path)["frames"] - expected).abs().max()) <= 1e-4


def test_a_lower_denoise_keeps_more(comfy, file, tmp_path):
    path = tmp_path / "frames.safetensors"
    truth = world.render(SCENE)
    distances = []
    for denoise in (0.25, 0.6, 1.0):
        assert not comfy.run(graph(path, "a blue circle moving right on a black background", denoise)).error
        distances.append(float((load_file(path)["frames"] - truth).abs().mean()))
    assert distances[0] < 0.8 * distances[1] < 0.8 * distances[2], distances


def test_an_upload_after_the_page_was_opened_runs_and_a_replaced_file_is_noticed(comfy, file, tmp_path):
    path = tmp_path / "frames.safetensors"
    first = comfy.run(graph(path, "a blue circle", 0.5, max_frames=12))
    assert not first.error and "5" not in comfy.run(graph(path, "a blue circle", 0.5, max_frames=12)).executed
    encode(world.render(SCENE), file, 8, "webm", 100)
    again = comfy.run(graph(path, "a blue circle", 0.5, max_frames=12))
    assert "5" in again.executed and again.texts["5"] == ["red circle.webm: 12 frames of 128x128 at 8 fps, no sound."]
    with av.open(str(comfy.base / "output" / "v2v_00001_.mp4")) as container:
        assert container.streams.video


def test_what_is_no_video_is_one_sentence(comfy, tmp_path):
    (comfy.base / "input").mkdir(exist_ok=True)
    (comfy.base / "input" / "red circle.webm").write_bytes(b"no video")
    error = comfy.run(graph(tmp_path / "x", "a", 0.5)).error
    assert "red circle.webm could not be read" in error and "choose another file" in error


def test_animated_gifs_are_offered_and_read(comfy, file, tmp_path):
    with av.open(str(file.with_name("red circle.gif")), "w") as container:
        stream = container.add_stream("gif", rate=8, width=64, height=64, pix_fmt="rgb8")
        for frame in world.render(SCENE)[:5]:
            picture = torch.nn.functional.interpolate(frame.permute(2, 0, 1)[None], 64)[0].permute(1, 2, 0)
            container.mux(stream.encode(av.VideoFrame.from_ndarray((picture * 255).byte().numpy(), format="rgb24").reformat(format="rgb8")))
        container.mux(stream.encode(None))
    offered = comfy.get("/object_info/AnimateDiffTurbo_LoadVideoFrames")["AnimateDiffTurbo_LoadVideoFrames"]["input"]["required"]["file"]
    assert {"red circle.webm", "red circle.gif"} <= set(offered[1]["options"] if isinstance(offered[0], str) else offered[0])
    load = turbo("LoadVideoFrames", file="red circle.gif", fps=8.0, first_n_seconds=3.0, skip_seconds=0.0, max_frames=5)
    run = comfy.run({"5": load, "9": node("Testing_SaveFrames", images=["5", 0], path=str(tmp_path / "gif.safetensors"))})
    assert not run.error and load_file(tmp_path / "gif.safetensors")["frames"].shape == (5, 64, 64, 3)
