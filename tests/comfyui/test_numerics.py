"""Final latents in a real ComfyUI against diffusers' AnimateDiffPipeline on the same weights."""

import dataclasses

import narrow
import pytest
import stacks
import torch
from graphs import sampled, saved, stack_graph

from animatediff_turbo.motion_modules.config import ADAPTERS

POOLED = "Testing_ApplyPooled"  # diffusers pools GroupNorm over frames, so this is what it can be compared with
LIGHTNING, LCM_50, LCM_100 = (ADAPTERS[name] for name in ("AnimateDiff-Lightning 4 step", "AnimateLCM", "AnimateLCM (repo)"))
CASES = [(LIGHTNING, steps) for steps in (1, 2, 3, 4, 6, 8, 12)] + [(row, steps) for row in (LCM_50, LCM_100) for steps in (1, 4, 8, 12)]


def in_comfy(comfy, stack, row, steps, guidance, file="narrow_v2.safetensors", **options):
    graph = sampled(stack_graph(stack, file, row.name, apply=POOLED, **options), steps=steps, guidance=guidance)
    run = comfy.run(graph)
    assert not run.error
    return saved(comfy, run)


@pytest.mark.parametrize("guidance", [1.0, 2.0])
@pytest.mark.parametrize(("row", "steps"), CASES, ids=lambda case: getattr(case, "name", case))
def test_final_latents_equal_diffusers(comfy, stack, row, steps, guidance):
    expected = narrow.reference(stack, row, steps, guidance)
    assert stacks.relative(in_comfy(comfy, stack, row, steps, guidance), expected) <= 1e-5


@pytest.mark.parametrize("row", [LIGHTNING, LCM_50], ids=lambda row: row.name)
def test_each_mutation_fails_by_more_than_a_tenth(comfy, stack, row):
    expected = narrow.reference(stack, row, 4, 2.0)
    wrong = {
        "betas": narrow.reference(stack, dataclasses.replace(row, beta_schedule="scaled_linear"), 4, 2.0),
        "frame count": narrow.reference(stack, row, 4, 2.0, videos=2),
        "a swapped block": in_comfy(comfy, stack, row, 4, 2.0, "swapped_v2.safetensors"),
        "a missing module": in_comfy(comfy, stack, row, 4, 2.0, "missing_v2.safetensors"),
    }
    distances = {name: stacks.relative(latents, expected) for name, latents in wrong.items()}
    assert min(distances.values()) > 0.1, distances


def test_eps_has_unit_deviation_and_motion_acts(stack):
    x, cond = torch.randn(1, 4, 8, 8, 8), stack.conds["positive"].expand(8, -1, -1)
    eps = stack.unet(x, 500, cond).sample
    still = narrow.build_unet()
    for name, tensor in still.named_parameters():
        if "motion_modules" in name and "proj_out" in name:
            tensor.zero_()
    assert 0.3 < float(eps.std()) < 3
    assert stacks.relative(still(x, 500, cond).sample, eps) > 0.3
