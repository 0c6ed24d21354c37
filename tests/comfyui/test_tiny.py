"""The tiny model in a real ComfyUI: the same pixels as the headless pipeline, and what is seen is what was asked for."""

import json
from dataclasses import asdict

import av
import pytest
import server as comfy_server
import torch
from convert_workflow import to_prompt
from graphs import node, turbo
from safetensors.torch import load_file

from animatediff_turbo.headless.pipeline import Request
from animatediff_turbo.headless.render import Models, load
from animatediff_turbo.headless.tiny import score, world
from animatediff_turbo.weights import TINY_BASE, TINY_MOTION

PROMPT = "a red circle moving right on a black background"


@pytest.fixture(scope="module")
def headless():
    return load(Models(device="cpu"))


def tiny_graph(prompt, negative, path, seed, steps=0, guidance=-1.0, strength=1.0):
    return {
        "1": turbo("LoadTinyTurbo"),
        "2": node("CLIPTextEncode", clip=["1", 1], text=prompt),
        "3": node("CLIPTextEncode", clip=["1", 1], text=negative),
        "4": turbo("ApplyMotionAdapter", model=["1", 0], motion_adapter=["1", 3], strength=strength),
        "5": turbo("EmptyVideoLatent", video_size="custom", width=128, height=128, num_frames=16),
        "6": turbo(
            "TurboSampler", model=["4", 0], positive=["2", 0], negative=["3", 0], latent=["5", 0], seed=seed, steps=steps, guidance=guidance,
            guidance_steps=0, denoise=1.0,
        ),
        "7": node("VAEDecode", samples=["6", 0], vae=["1", 2]),
        "8": node("Testing_SaveFrames", images=["7", 0], path=str(path)),
    }  # fmt: skip


def in_comfy(comfy, tmp_path, prompt, negative="", **options):
    run = comfy.run(tiny_graph(prompt, negative, tmp_path / "frames.safetensors", **options))
    assert not run.error
    return load_file(tmp_path / "frames.safetensors")["frames"]


@pytest.mark.parametrize(
    ("prompt", "negative", "steps", "guidance"),
    [
        (PROMPT, "", 4, 1.0),
        ("a (cyan:1.3) star moving up, (grey background)", "(bad quality, worst quality:1.2), ugly faces, (circle:0.7)", 4, 2.0),
        (f"{PROMPT}, " * 4 + "and (some:1.4) more words than fit into one section", "short", 2, 1.5),
    ],
)
def test_pixels_equal_the_headless_pipelines(comfy, headless, tmp_path, prompt, negative, steps, guidance):
    found = in_comfy(comfy, tmp_path, prompt, negative, seed=11, steps=steps, guidance=guidance)
    expected = headless(Request(prompt, negative, 128, 128, 16, steps, guidance, 11))
    assert found.shape == expected.shape == (16, 128, 128, 3)
    assert float((found - expected).abs().max()) <= 1e-4
    assert float(expected.std()) > 0.01 and torch.isfinite(expected).all()


def test_unseen_prompts_are_shown_and_judged_as_the_headless_clips(comfy, headless, tmp_path):
    pairs = world.some_pairs(6)
    found = [(scene, in_comfy(comfy, tmp_path, scene.prompt, seed=seed)) for scene, seed in pairs]
    expected = [headless(Request(scene.prompt, "", 128, 128, 16, 4, 1.0, seed)) for scene, seed in pairs]
    for (_, clip), other in zip(found, expected, strict=True):
        assert asdict(score.judge(clip)) == pytest.approx(asdict(score.judge(other)), abs=1e-3)  # words as they are, numbers of pixels that differ by 1e-4
    result = score.score(found)
    assert min(result.colour, result.direction, result.shape, result.background) >= 5 / 6 and result.r2 >= 0.95, result


def test_without_the_motion_adapter_the_frames_are_strangers(comfy, tmp_path):
    """On the same schedule: every frame shows its own shape somewhere, none follows the one before."""
    clip = in_comfy(comfy, tmp_path, PROMPT, seed=11, strength=0.0)
    moving = in_comfy(comfy, tmp_path, PROMPT, seed=11)
    assert score.judge(clip).r2 < 0.5 and score.judge(moving).r2 > 0.95


def test_core_ksampler_shows_the_same_clip(comfy, tmp_path):
    graph = tiny_graph(PROMPT, "", tmp_path / "frames.safetensors", 11)
    graph["6"] = node(
        "KSampler", model=["4", 0], positive=["2", 0], negative=["3", 0], latent_image=["5", 0], seed=11, steps=4, cfg=1.0, sampler_name="lcm",
        scheduler="simple", denoise=1.0,
    )  # fmt: skip
    assert not comfy.run(graph).error
    core = load_file(tmp_path / "frames.safetensors")["frames"]
    assert float((core - in_comfy(comfy, tmp_path, PROMPT, seed=11)).abs().max()) <= 1e-4


def test_the_first_run_ends_in_a_video_of_its_prompt(comfy):
    """From the bundled workflow to the pixels of the mp4."""
    ui = json.loads((comfy_server.ROOT / "workflows" / "First run (no downloads).json").read_text(encoding="utf-8"))
    prompt = to_prompt(ui, comfy.get("/object_info"))
    run = comfy.run(prompt, ui)
    assert not run.error
    (id_,) = (id_ for id_, each in prompt.items() if each["class_type"] == "AnimateDiffTurbo_DecodeAndCombine")
    (video,) = run.output(id_)["images"]
    with av.open(str(comfy.base / video["type"] / video["subfolder"] / video["filename"])) as container:
        frames = [torch.from_numpy(frame.to_ndarray(format="rgb24")) for frame in container.decode(video=0)]
    seen = score.judge(torch.stack(frames) / 255)
    texts = [each["inputs"]["text"] for each in prompt.values() if each["class_type"] == "CLIPTextEncode"]
    assert world.Scene(seen.shape, seen.colour, seen.direction, seen.background).prompt in texts


def test_a_single_file_that_comfyui_saved_is_the_same_model(comfy, headless, tmp_path):
    """Checkpoint Save writes the layout of published SD1.5 files; the command line reads it with --config."""
    graph = {
        "1": turbo("LoadTinyTurbo"),
        "2": node("CheckpointSave", model=["1", 0], clip=["1", 1], vae=["1", 2], filename_prefix="single/tiny"),
    }
    run = comfy.run(graph)
    assert not run.error
    (path,) = (comfy.base / "output" / "single").glob("tiny*.safetensors")
    stack = load(Models(path, TINY_BASE, TINY_MOTION, device="cpu"))
    request = Request(PROMPT, "", 64, 64, 2, 1, 1.0, 3)
    assert float((stack(request) - headless(request)).abs().max()) <= 2e-3  # saved in float16
