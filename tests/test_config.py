"""Which row a file gets."""

import pytest
import stacks

from animatediff_turbo.motion_modules import config, sampling, schedule
from animatediff_turbo.motion_modules.config import ADAPTERS, Layout

V2, V3 = stacks.PUBLISHED, Layout((320, 640, 1280, 1280), 2, False)


@pytest.mark.parametrize(
    ("name", "layout", "positions", "family"),
    [
        ("animatediff_lightning_4step_comfyui.safetensors", V2, 32, "AnimateDiff-Lightning 4 step"),
        ("animatediff_lightning_1step_diffusers.safetensors", V2, 32, "AnimateDiff-Lightning 1 step"),
        ("Lightning 8-steps.safetensors", V2, 32, "AnimateDiff-Lightning 8 step"),
        ("AnimateLCM_sd15_t2v.ckpt", V2, None, "AnimateLCM"),
        ("sd15_t2v_beta.ckpt", V2, None, "AnimateLCM"),
        ("mm_sd15_AnimateLCM.safetensors", V2, 32, "AnimateLCM"),
        ("mm_sd_v15_v2.ckpt", V2, 32, "AnimateDiff v2"),
        ("mm_sd_v15.ckpt", V3, 24, "AnimateDiff v1"),
        ("v3_sd15_mm.ckpt", V3, 32, "AnimateDiff v3"),
        ("lcm_finetune_without_mid.safetensors", V3, 32, "AnimateDiff v3"),
    ],
)
def test_published_files_are_identified(name, layout, positions, family):
    assert config.identify(name, layout, positions)[0] is ADAPTERS[family]


def test_a_nameless_file_of_the_v2_family_says_what_else_it_may_be():
    row, how = config.identify("diffusion_pytorch_model.fp16.safetensors", V2, 32)
    assert row.name == "AnimateDiff v2" and "Lightning or AnimateLCM" in how
    assert "Lightning" not in config.identify("mm_sd_v15_v2.ckpt", V2, 32)[1]


@pytest.mark.parametrize("name", ["animatediff_lightning.safetensors", "animatediff_lightning_3step.safetensors"])
def test_a_lightning_file_without_its_step_count_asks_for_the_family(name):
    with pytest.raises(ValueError, match=f"{name}: a Lightning file works at one step count only"):
        config.identify(name, V2, 32)


def test_a_family_that_the_tensors_exclude_is_refused():
    with pytest.raises(ValueError, match="v3.ckpt has no mid block but AnimateLCM files have one"):
        config.check("v3.ckpt", ADAPTERS["AnimateLCM"], V3)
    with pytest.raises(ValueError, match="v2.ckpt has a mid block but AnimateDiff v3 files have none"):
        config.check("v2.ckpt", ADAPTERS["AnimateDiff v3"], V2)
    with pytest.raises(ValueError, match="has no mid block but AnimateDiff-Lightning 4 step files have one"):
        config.identify("lightning_4step.safetensors", V3, 32)
    assert config.check("any", config.LCM_LORA, V2) is config.check("any", config.LCM_LORA, V3)


@pytest.mark.parametrize("row", ADAPTERS.values(), ids=lambda row: row.name)
def test_every_row_can_be_sampled(row):
    assert row.spacing in schedule.SPACINGS and row.sampler in sampling.SAMPLERS
    assert len(schedule.sigmas(row, 0)) == row.steps + 1
    assert 1 <= row.steps <= row.max_steps and row.guidance >= 1
    assert row.distilled_steps in (0, row.max_steps)
