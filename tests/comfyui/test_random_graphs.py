"""Sixty random legal graphs of the pack's and core's nodes on the tiny model: each ends in a video, in an interruption or in one of our sentences."""

import random
import re
from pathlib import Path

import pytest
import server as comfy_server
import stacks
from graphs import context_windows, node, turbo
from safetensors.torch import save_file

from animatediff_turbo.motion_modules import checkpoint
from animatediff_turbo.weights import TINY_MOTION

GRAPHS, WARM = 60, 20
ALLOWED = 300
"""Megabytes that an allocator may spread over 40 graphs; the tiny model left behind by each would be more than a thousand."""
PROMPTS = ("a red circle moving right on a black background", "an orange star moving up on grey", "(blue:1.3) square", "", "embedding:missing triangle")
SENTENCES = (r"\d+ frames at once, but tiny_turbo_motion\.safetensors knows 32; use fewer", r"steps is \d+, but Tiny Turbo was distilled on 8 timesteps")


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """A server of its own that keeps no results, so that its memory is what the graphs leave behind."""
    path = comfy_server.find()
    if path is None:
        pytest.skip("no ComfyUI: set COMFYUI_PATH to a checkout, or put one at ~/comfy/ComfyUI")
    running = comfy_server.Server(path, tmp_path_factory.mktemp("random"), "--cache-none")
    folder = running.base / "models" / "animatediff_motion_lora"
    folder.mkdir(parents=True, exist_ok=True)
    changes = stacks.motion_lora(checkpoint.load(TINY_MOTION).layout, gain=0.05)
    save_file(stacks.lora_file(changes), folder / "pan.safetensors")
    yield running
    running.stop()


def prompt(dice, frames, number):
    if dice.random() < 0.25:
        text = f"0: {dice.choice(PROMPTS)}\n{dice.randint(1, 12)}: {dice.choice(PROMPTS)}"
        return turbo("PromptTravel", clip=["1", 1], prompts=text, num_frames=frames)
    return node("CLIPTextEncode", clip=["1", 1], text=dice.choice(PROMPTS))


def sampling(dice, model, steps, seed):
    """The nodes of one of the three samplers; the latent is output 0 of "20"."""
    kind, guidance, denoise = dice.choice(("Turbo", "KSampler", "Custom")), dice.choice((1.0, 1.5, 3.0)), dice.choice((1.0, 1.0, 0.6))
    shared = {"positive": ["2", 0], "negative": ["3", 0], "seed": seed, "steps": steps, "denoise": denoise}
    if kind == "Turbo":
        return {"20": turbo("TurboSampler", model=model, latent=["5", 0], guidance=guidance, guidance_steps=dice.choice((0, 1)), **shared)}
    if kind == "KSampler":
        names = {"sampler_name": dice.choice(("lcm", "euler", "dpmpp_2m", "uni_pc")), "scheduler": dice.choice(("simple", "karras", "normal"))}
        return {"20": node("KSampler", model=model, latent_image=["5", 0], cfg=guidance, **shared | {"steps": max(steps, 1)}, **names)}
    return {
        "21": turbo("TurboSchedule", model=model, steps=steps, denoise=denoise),
        "22": node("CFGGuider", model=model, positive=["2", 0], negative=["3", 0], cfg=["21", 2]),
        "23": node("RandomNoise", noise_seed=seed),
        "20": node("SamplerCustomAdvanced", noise=["23", 0], guider=["22", 0], sampler=["21", 0], sigmas=["21", 1], latent_image=["5", 0]),
    }


def graph(server, dice):
    """A legal graph: every value within its node's range."""
    frames = dice.choice((1, 2, 5, 8, 12, 16, 16, 20, 32, 40))
    result = {
        "1": turbo("LoadTinyTurbo"),
        "2": prompt(dice, frames, 2),
        "3": prompt(dice, frames, 3),
        "5": turbo("EmptyVideoLatent", video_size="custom", width=dice.choice((64, 72)), height=64, num_frames=frames),
    }
    adapter = ["1", 3]
    for number in range(dice.choice((0, 0, 1, 2))):
        result[f"3{number}"] = turbo("LoadMotionLora", motion_adapter=adapter, file="pan.safetensors", strength=dice.choice((-0.5, 0.0, 1.0)))
        adapter = [f"3{number}", 0]
    apply = {"model": ["1", 0], "motion_adapter": adapter, "strength": dice.choice((0.0, 0.5, 1.0, 1.0, 2.0))}
    if dice.random() < 0.3:
        apply["strength_over_time"] = dice.choice(("0: 0 | 8: 1", "3: 0.5"))
    if dice.random() < 0.2:
        result["6"] = node("SolidMask", value=dice.choice((0.0, 0.5, 1.0)), width=64, height=64)
        apply["mask"] = ["6", 0]
    result["4"], model = turbo("ApplyMotionAdapter", **apply), ["4", 0]
    if dice.random() < 0.4:
        schedule, length = dice.choice(("standard_static", "standard_uniform", "looped_uniform", "batched")), dice.choice((8, 16, 32))
        result["7"] = context_windows(server, context_length=length, context_schedule=schedule, closed_loop=dice.random() < 0.5, freenoise=dice.random() < 0.5)
        model = ["7", 0]
    result |= sampling(dice, model, dice.choice((0, 1, 2, 3, 9)), dice.randrange(2**64))
    result["8"] = node("VAEDecode", samples=["20", 0], vae=["1", 2])
    options = {"format": dice.choice(("mp4", "webm", "webp")), "quality": dice.choice((0, 80, 100)), "loop_count": dice.choice((0, 1)), "save": dice.random() < 0.5}
    return result | {"9": turbo("CombineVideo", images=["8", 0], fps=8.0, pingpong=dice.random() < 0.3, filename_prefix="random", **options)}


def memory(server):
    """Resident megabytes of the server."""
    (line,) = re.findall(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{server.process.pid}/status").read_text())
    return int(line) / 1024


def test_each_ends_in_a_video_or_in_a_sentence_and_leaves_no_model_behind(server):
    endings, warm = {"video": 0, "sentence": 0, "interrupted": 0}, 0.0
    for number in range(GRAPHS):
        dice = random.Random(number)
        asked, interrupting = graph(server, dice), number % 12 == 7

        def during(kind, data, stop=interrupting):
            if stop and kind == "executing" and data.get("node") == "20":
                server.post("/interrupt", {})

        run = server.run(asked, during=during)
        if run.error:
            assert any(re.search(sentence, run.error) for sentence in SENTENCES), (number, run.error)
            endings["sentence"] += 1
        elif run.of("execution_interrupted"):
            assert interrupting, number
            endings["interrupted"] += 1
        else:
            (video,) = run.output("9")["images"]
            assert (server.base / video["type"] / video["filename"]).stat().st_size > 100, number
            endings["video"] += 1
        if number == WARM:
            warm = memory(server)
    assert endings["video"] >= GRAPHS / 2 and endings["sentence"] and endings["interrupted"], endings
    assert memory(server) - warm < ALLOWED, (warm, memory(server))
