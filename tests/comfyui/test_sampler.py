"""Turbo Sampler beside ComfyUI's own samplers, guidance_steps, denoise, progress and interrupt."""

import json

import pytest
import stacks
import torch
from graphs import node, sampled, saved, stack_graph, turbo
from test_numerics import LCM_50, LCM_100, LIGHTNING

from animatediff_turbo.motion_modules import schedule
from animatediff_turbo.motion_modules.config import ADAPTERS

FILE = "narrow_v2.safetensors"


def calls(path):
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


@pytest.mark.parametrize("row", ADAPTERS.values(), ids=lambda row: row.name)
def test_the_installed_table_is_the_rows_and_its_timesteps_are_exact(comfy, stack, row):
    if row.mid_block is False:  # this stack's adapter has one: the same table without the adapter
        graph = {"1": node("Testing_UNet", path=stack.unet_file), "4": node("Testing_Schedule", model=["1", 0], row=row.name)}
    else:
        graph = stack_graph(stack, FILE, row.name)
    run = comfy.run(graph | {"50": node("Testing_Table", model=["4", 0])})
    found = run.output("50")
    assert found["buffers"] == []  # none for ComfyUI to save and to write into another MODEL's table
    assert found["timesteps"] == schedule.distilled_timesteps(row)
    sigmas = schedule.sigma_table(row.beta_schedule)[found["timesteps"]]
    assert torch.equal(torch.tensor(found["sigmas"]), sigmas)
    torch.testing.assert_close(torch.tensor(found["back"]), sigmas, rtol=1e-6, atol=0)


def watched(graph, log, block_at=-1):
    """graph with its UNet calls written to log; the watched MODEL is ["6", 0]."""
    return graph | {"6": node("Testing_Watch", model=["4", 0], log=str(log), block_at=block_at)}


@pytest.mark.parametrize("guidance", [1.0, 2.0])
@pytest.mark.parametrize(("row", "steps"), [(LIGHTNING, 4), (LIGHTNING, 8), (LCM_50, 8), (LCM_50, 7), (LCM_100, 6)], ids=lambda case: getattr(case, "name", case))
def test_core_ksampler_and_custom_sampler_give_the_same_latents(comfy, stack, row, steps, guidance):
    graph = sampled(stack_graph(stack, FILE, row.name), steps=steps, guidance=guidance)
    graph["20"] = node(
        "KSampler", model=["4", 0], positive=["2", 0], negative=["2", 1], latent_image=["5", 0], seed=5, steps=steps, cfg=guidance,
        sampler_name=row.sampler, scheduler="simple", denoise=1.0,
    )  # fmt: skip
    graph["21"] = node("SaveLatent", samples=["20", 0], filename_prefix="latents/core")
    graph["30"] = turbo("TurboSchedule", model=["4", 0], steps=steps, denoise=1.0)
    graph["31"] = node("CFGGuider", model=["4", 0], positive=["2", 0], negative=["2", 1], cfg=guidance)
    graph["32"] = node("RandomNoise", noise_seed=5)
    graph["33"] = node("SamplerCustomAdvanced", noise=["32", 0], guider=["31", 0], sampler=["30", 0], sigmas=["30", 1], latent_image=["5", 0])
    graph["34"] = node("SaveLatent", samples=["33", 0], filename_prefix="latents/custom")
    run = comfy.run(graph)
    ours, core, custom = (saved(comfy, run, id_) for id_ in ("11", "21", "34"))
    # LCM adds its noise as x + sigma * noise in one rounding, ComfyUI in two; everything else is the same operation
    assert stacks.relative(core, ours) <= 1e-6 and torch.equal(custom, ours)


def test_the_schedule_hands_out_the_rows_guidance(comfy, stack):
    graph = stack_graph(stack, FILE, "AnimateLCM")
    graph["30"] = turbo("TurboSchedule", model=["4", 0], steps=0, denoise=1.0)
    graph["31"] = node("CFGGuider", model=["4", 0], positive=["2", 0], negative=["2", 1], cfg=["30", 2])
    graph["32"] = node("RandomNoise", noise_seed=5)
    graph["33"] = node("SamplerCustomAdvanced", noise=["32", 0], guider=["31", 0], sampler=["30", 0], sigmas=["30", 1], latent_image=["5", 0])
    graph["34"] = node("SaveLatent", samples=["33", 0], filename_prefix="latents/custom")
    run = comfy.run(sampled(graph))
    assert torch.equal(saved(comfy, run, "34"), saved(comfy, run))


def test_guidance_steps_halve_the_rows_of_every_later_step(comfy, stack, tmp_path):
    rows = {}
    for guidance_steps in (0, 2):
        log = tmp_path / f"{guidance_steps}.log"
        graph = watched(stack_graph(stack, FILE, LCM_50.name), log)
        run = comfy.run(sampled(graph, model=("6", 0), steps=4, guidance=2.0, guidance_steps=guidance_steps))
        assert not run.error
        rows[guidance_steps] = {}
        for call in calls(log):
            rows[guidance_steps][call["timestep"]] = rows[guidance_steps].get(call["timestep"], 0) + call["rows"]
    assert rows[0] == {999: 16, 759: 16, 499: 16, 259: 16}
    assert rows[2] == {999: 16, 759: 16, 499: 8, 259: 8}


def test_guidance_below_one_is_one_and_asks_for_half_the_rows(comfy, stack, tmp_path):
    latents = []
    for guidance in (0.0, 0.5, 1.0):
        log = tmp_path / f"{guidance}.log"
        graph = sampled(watched(stack_graph(stack, FILE, LCM_50.name), log), model=("6", 0), steps=2, guidance=guidance)
        run = comfy.run(graph)
        latents.append(saved(comfy, run))
        assert [call["rows"] for call in calls(log)] == [8, 8]
    assert torch.equal(latents[0], latents[1]) and torch.equal(latents[0], latents[2])


def test_denoise_starts_below_and_shows_its_timesteps(comfy, stack, tmp_path):
    log = tmp_path / "calls.log"
    graph = watched(stack_graph(stack, FILE, LIGHTNING.name), log)
    run = comfy.run(sampled(graph, model=("6", 0), denoise=0.5))
    assert [call["timestep"] for call in calls(log)] == [499, 249]
    assert "timesteps 499, 249" in run.texts["10"][-1] and "timesteps 499, 249" in comfy.log


def test_progress_counts_steps_and_previews_come(comfy, stack):
    run = comfy.run(sampled(stack_graph(stack, FILE, LIGHTNING.name), seed=77), preview="latent2rgb")
    steps = [(data["value"], data["max"]) for data in run.of("progress") if data["node"] == "10"]
    assert steps[-4:] == [(1, 4), (2, 4), (3, 4), (4, 4)]
    assert len(run.previews) == 4


def test_an_interrupt_lets_at_most_one_unet_call_finish(comfy, stack, tmp_path):
    log = tmp_path / "calls.log"
    graph = watched(stack_graph(stack, FILE, LCM_50.name), log, block_at=1)
    sent = []

    def during(kind, data):
        # the first step is over when its progress arrives; the second call waits inside the UNet for this interrupt
        if kind == "progress" and data["node"] == "10" and not sent:
            sent.append(comfy.post("/interrupt", {}))

    run = comfy.run(sampled(graph, model=("6", 0), steps=8, guidance=1.0, seed=78), during=during)
    assert run.of("execution_interrupted") and sent
    assert len(calls(log)) <= 2


def test_the_same_seed_repeats_and_another_differs(comfy, stack):
    graph = stack_graph(stack, FILE, LIGHTNING.name)
    first = saved(comfy, comfy.run(sampled(graph, seed=1)))
    other = saved(comfy, comfy.run(sampled(graph, seed=2)))
    comfy.post("/free", {"unload_models": True, "free_memory": True})
    assert torch.equal(saved(comfy, comfy.run(sampled(graph, seed=1))), first)
    assert stacks.relative(other, first) > 0.1


def test_a_mask_keeps_what_it_covers(comfy, stack):
    graph = stack_graph(stack, FILE, LIGHTNING.name)
    graph["40"] = node("SolidMask", value=0.0, width=64, height=64)
    graph["41"] = node("SetLatentNoiseMask", samples=["5", 0], mask=["40", 0])
    run = comfy.run(sampled(graph, latent=("41", 0)))
    assert not run.error and float(saved(comfy, run).abs().max()) < 1e-4
