"""Core's Context Windows with our motion module: the same windows computed by themselves give the same clip, and loops close."""

import json

import pytest
import stacks
import torch
from graphs import context_windows, node, turbo
from safetensors.torch import load_file

from animatediff_turbo.headless import prompts
from animatediff_turbo.headless.diffusion import clean, predict
from animatediff_turbo.headless.motion import attached
from animatediff_turbo.headless.render import Models, load
from animatediff_turbo.headless.tiny import score, world
from animatediff_turbo.motion_modules import sampling, schedule

PROMPT = "a red circle moving right on a black background"
LENGTH, OVERLAP, SEED, STEPS = 16, 4, 11, 2


@pytest.fixture(scope="module")
def tiny():
    return load(Models(device="cpu"))


def sampled(comfy, path, windows, frames, side=64, prompt=PROMPT, seed=SEED, steps=STEPS, guidance=1.0, decode=False, more=None):
    """The latents on the UNet's scale, or the frames."""
    graph = {
        "1": turbo("LoadTinyTurbo"),
        "2": node("CLIPTextEncode", clip=["1", 1], text=prompt),
        "3": node("CLIPTextEncode", clip=["1", 1], text="a blue star"),
        "4": turbo("ApplyMotionAdapter", model=["1", 0], motion_adapter=["1", 3], strength=1.0),
        "5": turbo("EmptyVideoLatent", video_size="custom", width=side, height=side, num_frames=frames),
        "6": windows,
        "7": turbo(
            "TurboSampler", model=["6", 0], positive=["2", 0], negative=["3", 0], latent=["5", 0], seed=seed, steps=steps, guidance=guidance,
            guidance_steps=0, denoise=1.0,
        ),
    }  # fmt: skip
    if decode:
        graph |= {"8": node("VAEDecode", samples=["7", 0], vae=["1", 2]), "9": node("Testing_SaveFrames", images=["8", 0], path=str(path))}
    else:
        graph |= {"9": node("SaveLatent", samples=["7", 0], filename_prefix="latents/windows")}
    run = comfy.run(graph | (more or {}))
    assert not run.error, run.error
    if decode:
        return load_file(path)["frames"]
    (entry,) = run.output("9")["latents"]
    return load_file(comfy.base / "output" / entry["subfolder"] / entry["filename"])["latent_tensor"] * 0.18215


PYRAMID = [*range(1, 9), *range(8, 0, -1)]


def alone(tiny, plan, frames, causal, freenoise=False, guidance=1.0, side=64, weights=PYRAMID):
    """The same clip from headless parts: plan lists the windows of each step, whose results are averaged by weights."""
    sigmas = schedule.sigmas(tiny.adapter, STEPS)
    table = schedule.sigma_table(tiny.adapter.beta_schedule).log()
    conds = [prompts.encode(tiny.base.tokenizer, tiny.base.text_encoder, text) for text in (PROMPT, "a blue star")]
    noise = torch.randn((frames, 4, side // 8, side // 8), generator=torch.Generator().manual_seed(SEED))
    if freenoise:  # arXiv 2310.15169: the frames after a window repeat the noise of those before, in another order
        generator = torch.Generator().manual_seed(SEED)
        for start in range(0, frames - LENGTH, LENGTH - OVERLAP):
            count = min(LENGTH - OVERLAP, frames - LENGTH - start)
            noise[start + LENGTH : start + LENGTH + count] = noise[start + torch.randperm(count, generator=generator)]
    steps = iter(plan)

    def window(x, sigma, indices, cond):
        shown = [indices[0] - 1, *indices] if causal and indices[0] > 0 else indices
        part, level = x[shown], sigma[shown]
        timestep = (level[0].log() - table).abs().argmin().expand(len(part))
        with attached(tiny.base.unet, tiny.motion, len(shown)):
            output = predict(tiny.base.unet, part, level, timestep, cond.expand(len(part), -1, -1))
        return clean(tiny.base.predicts, part, level, output)[-len(indices) :]

    def denoise(x, sigma, seed):
        chosen, results = next(steps), []
        for cond in conds[: 1 + (guidance != 1)]:
            total, share = torch.zeros_like(x), torch.zeros(frames, 1, 1, 1)
            for indices in chosen:
                weight = torch.tensor(weights, dtype=torch.float32)[:, None, None, None]
                total[indices] += weight * window(x, sigma, indices, cond)
                share[indices] += weight
            results.append(total / share)
        return results[0] if guidance == 1 else results[1] + guidance * (results[0] - results[1])

    start = (sigmas[0] ** 2 + 1).sqrt()
    with torch.no_grad():
        return sampling.sample_lcm(denoise, noise * start, sigmas, {"seed": SEED})


def span(start, frames=40):
    return [index % frames for index in range(start, start + LENGTH)]


STATIC = [[span(0), span(12), span(24)]] * STEPS
# arXiv 2307.04725's demo: every other step starts half a clip later; closed, the last window wraps around
LOOPED = [[span(0), span(12), span(24), span(36)], [span(20), span(32), span(44), span(56)]]
CASES = {
    "static": ({"context_schedule": "standard_static"}, STATIC, False, {}),
    "static, causal fix": ({"context_schedule": "standard_static", "causal_window_fix": True}, STATIC, True, {}),
    "static, FreeNoise": ({"context_schedule": "standard_static", "freenoise": True}, STATIC, False, {"freenoise": True}),
    "static, flat, guidance": ({"context_schedule": "standard_static", "fuse_method": "flat"}, STATIC, False, {"guidance": 2.0, "weights": [1] * LENGTH}),
    "looped, closed": ({"context_schedule": "looped_uniform", "closed_loop": True}, LOOPED, False, {}),
    "looped, closed, causal fix": ({"context_schedule": "looped_uniform", "closed_loop": True, "causal_window_fix": True}, LOOPED, True, {}),
    "looped, open": ({"context_schedule": "looped_uniform", "closed_loop": False}, [LOOPED[0][:3], LOOPED[1][:3]], False, {}),
}


@pytest.mark.parametrize(("options", "plan", "causal", "also"), CASES.values(), ids=CASES)
def test_windows_equal_the_same_windows_computed_alone(comfy, tiny, tmp_path, options, plan, causal, also):
    windows = context_windows(comfy, **{"causal_window_fix": False} | options)
    found = sampled(comfy, tmp_path, windows, 40, guidance=also.get("guidance", 1.0))
    expected = alone(tiny, plan, 40, causal, **also)
    assert stacks.relative(found, expected) <= 1e-5
    other = alone(tiny, [[span(0), span(8), span(16), span(24), span(36)]] * STEPS, 40, causal, **also)
    assert stacks.relative(found, other) > 0.01


@pytest.mark.parametrize("frames", [32, 48])
def test_a_loop_closes(comfy, tmp_path, frames):
    """As the workflow has it: with the causal fix, only windows that do not start at frame 0 see a frame more, and the seam stays."""
    windows = context_windows(comfy, context_schedule="looped_uniform", closed_loop=True, causal_window_fix=False)
    clip = sampled(comfy, tmp_path / "loop.safetensors", windows, frames, side=128, steps=4, seed=1, decode=True)
    neighbours = (clip[1:] - clip[:-1]).abs().mean((1, 2, 3))
    assert float((clip[0] - clip[-1]).abs().mean()) <= 1.25 * float(neighbours.median())
    seen = [score.judge(clip[start : start + 16]) for start in range(0, frames, 16)]
    assert {(verdict.colour, verdict.shape) for verdict in seen} == {("red", "circle")} and float(neighbours.median()) > 1e-4


def moves(clip):
    """Which way most frames go on from the one before: in 64 frames a shape leaves the picture's middle and has to come back, which a regression line sees."""
    pixels = (clip - clip.flatten(0, 2).median(0).values).norm(dim=-1)
    step = score._centroids(pixels > score.FOREGROUND * pixels.max()).diff(dim=0).median(0).values
    return min(world.DIRECTIONS, key=lambda name: float((step / step.norm() - torch.tensor(world.DIRECTIONS[name])).norm()))


@pytest.mark.parametrize(("scene", "seed"), world.some_pairs(3), ids=lambda value: getattr(value, "prompt", ""))
def test_64_frames_keep_colour_and_direction_in_every_quarter(comfy, tmp_path, scene, seed):
    """As the workflow Long clip has it."""
    windows = context_windows(comfy, context_schedule="standard_static", freenoise=True, causal_window_fix=False)
    clip = sampled(comfy, tmp_path / "long.safetensors", windows, 64, side=128, prompt=scene.prompt, seed=seed, steps=4, decode=True)
    for start in range(0, 64, 16):
        quarter = clip[start : start + 16]
        seen = score.judge(quarter)
        assert (seen.colour, seen.shape, seen.background, moves(quarter)) == (scene.colour, scene.shape, scene.background, scene.direction), start


def test_a_clip_of_128_frames_has_no_end_of_its_table(comfy, tmp_path):
    clip = sampled(comfy, tmp_path, context_windows(comfy, freenoise=True, causal_window_fix=False), 128)
    assert clip.shape == (128, 4, 8, 8) and clip.isfinite().all() and float(clip.std()) > 0.1


@pytest.mark.parametrize("causal", [False, True])
def test_whoever_has_a_picture_for_each_frame_is_told_which_frames_a_window_shows(comfy, tmp_path, causal):
    log = tmp_path / "told.jsonl"
    windows = context_windows(comfy, model=("20", 0), context_schedule="standard_static", causal_window_fix=causal)
    sampled(comfy, None, windows, 28, guidance=2.0, steps=1, more={"20": node("Testing_Listen", model=["4", 0], log=str(log))})
    told = [json.loads(line) for line in log.read_text().splitlines()]
    assert {told["full_length"] for told, _ in told} == {28} and all(told["context_length"] == len(told["sub_idxs"]) == rows for told, rows in told)
    shown = {tuple(told["sub_idxs"]) for told, _ in told}
    assert shown == {tuple(range(16)), tuple(range(11 if causal else 12, 28))}


def test_without_windows_nobody_is_told_of_any(comfy, tmp_path):
    log = tmp_path / "told.jsonl"
    sampled(comfy, None, node("Testing_Listen", model=["4", 0], log=str(log)), 16, steps=1)
    assert {tuple(json.loads(line)) for line in log.read_text().splitlines()} == {(None, 16)}
