"""What will go wrong is said under the sampler and in the log before the first step, and nothing is said of a run that is right."""

import pytest
import torch
from graphs import context_windows, node, sampled, stack_graph, turbo
from safetensors.torch import save_file
from test_numerics import LCM_50, LIGHTNING

from animatediff_turbo.motion_modules.config import ADAPTERS

FILE, V2 = "narrow_v2.safetensors", ADAPTERS["AnimateDiff v2"]
SAMPLERS = ("KSampler", "SamplerCustomAdvanced", "TurboSampler")
CORE = SAMPLERS[:2]
LORA = {"60": node("LoraLoaderModelOnly", model=["4", 0], lora_name="preflight.safetensors", strength_model=0.8)}


@pytest.fixture(scope="module", autouse=True)
def lora(comfy):
    folder = comfy.base / "models" / "loras"
    folder.mkdir(parents=True, exist_ok=True)
    name = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q"
    save_file({f"{name}.lora_up.weight": torch.ones(32, 4), f"{name}.lora_down.weight": torch.ones(4, 32)}, folder / "preflight.safetensors")


def core(kind, model, steps, guidance, sampler, scheduler):
    """Nodes that sample with ComfyUI's own; the running one is "10"."""
    if kind == "KSampler":
        options = {"steps": steps, "cfg": guidance, "sampler_name": sampler, "scheduler": scheduler, "denoise": 1.0}
        return {"10": node("KSampler", model=model, positive=["2", 0], negative=["2", 1], latent_image=["5", 0], seed=5, **options)}
    return {
        "20": node("CFGGuider", model=model, positive=["2", 0], negative=["2", 1], cfg=guidance),
        "21": node("RandomNoise", noise_seed=5),
        "22": node("KSamplerSelect", sampler_name=sampler),
        "23": node("BasicScheduler", model=model, scheduler=scheduler, steps=steps, denoise=1.0),
        "10": node("SamplerCustomAdvanced", noise=["21", 0], guider=["20", 0], sampler=["22", 0], sigmas=["23", 0], latent_image=["5", 0]),
    }


def run(comfy, stack, kind, row=LIGHTNING, frames=12, steps=None, guidance=None, sampler=None, scheduler="simple", model=("4", 0), extra=None):
    """Samples with one kind of node and returns the Run, the lines under it and what was logged."""
    graph = stack_graph(stack, FILE, row.name, frames=frames) | (extra or {})
    steps, guidance, model = steps or row.steps, row.guidance if guidance is None else guidance, list(model)
    if kind == "TurboSampler":
        inputs = {"seed": 5, "steps": steps, "guidance": guidance, "guidance_steps": 0, "denoise": 1.0}
        graph["10"] = turbo("TurboSampler", model=model, positive=["2", 0], negative=["2", 1], latent=["5", 0], **inputs)
    else:
        graph |= core(kind, model, steps, guidance, sampler or row.sampler, scheduler)
    graph["11"] = node("SaveLatent", samples=["10", 0], filename_prefix="latents/preflight")
    before = len(comfy.log)
    found = comfy.run(graph)
    return found, found.texts.get("10", [""])[-1].splitlines(), comfy.log[before:]


@pytest.mark.parametrize("kind", SAMPLERS)
def test_a_right_run_is_summed_up_and_nothing_else_is_said(comfy, stack, kind):
    found, lines, _ = run(comfy, stack, kind)
    assert not found.error and lines == ["AnimateDiff-Lightning 4 step: 12 frames, timesteps 999, 749, 499, 249, euler, guidance 1."]
    found, lines, log = run(comfy, stack, kind, LCM_50, 16, model=("60", 0), extra=LORA)
    assert not found.error and len(lines) == 1 and lines[0].startswith("AnimateLCM: 16 frames, timesteps 999, 879,") and lines[0] in log


CASES = {
    "few frames": ({"frames": 8}, "This clip has 8 frames, and motion needs 12 or more (16 are best); use more frames."),
    "one frame": ({"frames": 1}, "This clip has 1 frame, and motion needs 12 or more"),
    "other steps": (
        {"steps": 3},
        f"{FILE} was distilled for 4 steps and this run's 3 are others; use Turbo Sampler with steps 4, or 4 steps and the scheduler simple.",
    ),
    "few steps": ({"row": V2, "frames": 16, "steps": 8}, f"8 steps are too few for {FILE}, which is not distilled; use 25, or a turbo adapter"),
    "high guidance": ({"guidance": 3.0}, f"Guidance 3 burns out {FILE}, which has it distilled in; use 1, at most 2."),
    "no LoRA": ({"row": LCM_50, "steps": 2, "frames": 16}, "AnimateLCM needs its LoRA and this model has none; add AnimateLCM_sd15_t2v_lora.safetensors at strength 0.8"),
    "schedule overwritten": (
        {"model": ("61", 0), "extra": {"61": node("ModelSamplingDiscrete", model=["4", 0], sampling="lcm", zsnr=False)}},
        f"ModelSamplingAdvanced has replaced the noise schedule that {FILE} was trained on; remove the node that sets it, such as ModelSamplingDiscrete.",
    ),
    "another pack's handler": (
        {"model": ("61", 0), "extra": {"61": node("Testing_Foreign", model=["4", 0])}},
        "testing_pack changes the layers behind which motion runs; remove its nodes from this model, or Apply Motion Adapter.",
    ),
    "another pack's modules": (
        {"model": ("61", 0), "extra": {"61": node("Testing_Inject", model=["4", 0])}},
        "another_pack changes the layers behind which motion runs",
    ),
}


@pytest.mark.parametrize("kind", SAMPLERS)
@pytest.mark.parametrize(("options", "sentence"), CASES.values(), ids=CASES)
def test_what_looks_worse_than_it_could_is_said_and_runs(comfy, stack, kind, options, sentence):
    found, lines, log = run(comfy, stack, kind, **options)
    assert not found.error and found.output("11")
    assert len(lines) == 2 and lines[1].startswith(sentence) and lines[1] in log


@pytest.mark.parametrize("kind", CORE)
@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"sampler": "lcm"}, f"{FILE} was distilled for the sampler euler, not for lcm; choose euler."),
        ({"scheduler": "karras"}, f"{FILE} was distilled for 4 steps and this run's 4 are others"),
        (
            {"row": LCM_50, "scheduler": "karras", "model": ("60", 0), "extra": LORA},
            f"This run's noise levels lie between those that {FILE} was distilled on; use Turbo Sampler, or the scheduler simple.",
        ),
    ],
    ids=["sampler", "Lightning's scheduler", "AnimateLCM's scheduler"],
)
def test_core_samplers_are_told_what_turbo_sampler_does_by_itself(comfy, stack, kind, options, sentence):
    found, lines, log = run(comfy, stack, kind, **options)
    assert not found.error and len(lines) == 2 and sentence in lines[1] and lines[1] in log


def test_a_part_of_the_noise_on_an_empty_latent_is_said(comfy, stack):
    graph = sampled(stack_graph(stack, FILE, LIGHTNING.name, frames=12), denoise=0.5)
    found = comfy.run(graph)
    assert "The latent is empty and this run begins with a part of the noise, at timestep 499; set denoise to 1 and the scheduler to simple" in found.texts["10"][-1]
    again = comfy.run(graph | {"12": turbo("TurboSampler", **graph["10"]["inputs"] | {"latent": ["10", 0]}), "11": node("SaveLatent", samples=["12", 0], filename_prefix="x")})
    assert not again.error and "empty" not in again.texts["12"][-1]


@pytest.mark.parametrize("kind", SAMPLERS)
@pytest.mark.parametrize(
    ("extra", "frames", "sentence"),
    [
        ({"5": node("EmptyHunyuanLatentVideo", width=64, height=64, length=17, batch_size=1)}, 12, "a clip's is (frames, 4, height / 8, width / 8); use Empty Video Latent."),
        ({"2": node("Testing_Conditioning", path="wide")}, 12, "A prompt comes from a text encoder 768 numbers wide and this model's is 64; connect CLIP"),
        ({"61": {"context_length": 8, "context_overlap": 12}}, 20, "context_overlap 12 and context_length 8; set an overlap below the length"),
        ({"61": {"dim": 2}}, 33, "Context Windows (Manual) cuts dimension 2 of the latent, and frames are dimension 0; set dim to 0."),
    ],
    ids=["a video model's latent", "another text encoder", "overlap", "dim"],
)
def test_what_the_unet_would_fail_on_is_one_sentence_with_the_fix(comfy, stack, tmp_path, kind, extra, frames, sentence):
    model = ("4", 0)
    if "61" in extra:
        extra, model = {"61": context_windows(comfy, **extra["61"])}, ("61", 0)
    if "2" in extra:
        save_file({name: torch.randn(1, 8, 768) for name in ("positive", "negative")}, tmp_path / "wide.safetensors")
        extra = {"2": node("Testing_Conditioning", path=str(tmp_path / "wide.safetensors"))}
    found, _, _ = run(comfy, stack, kind, frames=frames, model=model, extra=extra)
    assert sentence in found.error, found.error


def test_windows_in_batches_have_no_overlap_that_could_be_too_large(comfy, stack):
    windows = {"61": context_windows(comfy, context_schedule="batched", context_length=12, context_overlap=12)}
    found, _, _ = run(comfy, stack, "TurboSampler", frames=24, model=("61", 0), extra=windows)
    assert not found.error and found.output("11")


@pytest.mark.parametrize("kind", SAMPLERS)
def test_what_cannot_work_stops_before_the_first_step(comfy, stack, tmp_path, kind):
    calls = tmp_path / "calls.log"
    extra = {"61": node("Testing_Watch", model=["4", 0], log=str(calls), block_at=-1)}
    found, _, _ = run(comfy, stack, kind, frames=33, model=("61", 0), extra=extra)
    assert "33 frames at once, but narrow_v2.safetensors knows 32; use fewer, or add Context Windows (Manual)" in found.error and not calls.exists()


def test_a_sentence_goes_when_its_reason_is_gone(comfy, stack):
    assert len(run(comfy, stack, "KSampler", frames=8)[1]) == 2
    assert len(run(comfy, stack, "KSampler", frames=16)[1]) == 1
