"""Timesteps and sigmas against diffusers' schedulers, for every row of the table."""

import pytest
import torch
from diffusers import EulerDiscreteScheduler, LCMScheduler

from animatediff_turbo.motion_modules import schedule
from animatediff_turbo.motion_modules.config import ADAPTERS

BETAS = {"num_train_timesteps": 1000, "beta_start": 0.00085, "beta_end": 0.012}
ROWS = pytest.mark.parametrize("row", ADAPTERS.values(), ids=lambda row: row.name)


def reference(row, steps, **options):
    """Timesteps and sigmas of diffusers' scheduler for a row."""
    if row.spacing == "lcm":
        scheduler = LCMScheduler(**BETAS, beta_schedule=row.beta_schedule, original_inference_steps=row.distilled_steps)
        scheduler.set_timesteps(steps, **options)
        alphas = scheduler.alphas_cumprod[scheduler.timesteps]
        return scheduler.timesteps, torch.cat([((1 - alphas) / alphas).sqrt(), torch.zeros(1)])
    offset = 1 if row.spacing == "leading" else 0
    scheduler = EulerDiscreteScheduler(**BETAS, beta_schedule=row.beta_schedule, timestep_spacing=row.spacing, steps_offset=offset)
    scheduler.set_timesteps(steps)
    return scheduler.timesteps, scheduler.sigmas


@ROWS
def test_equal_to_diffusers_for_every_step_count(row):
    for steps in range(1, min(row.max_steps, 50) + 1):
        timesteps, sigmas = reference(row, steps)
        assert schedule.timesteps(row, steps) == timesteps.tolist()
        # diffusers sums its alphas in float32, which costs it 1.3e-5 at timestep 1 and 2e-6 elsewhere
        tolerance = 2e-5 if row.spacing == "leading" else 3e-6
        torch.testing.assert_close(schedule.sigmas(row, steps), sigmas, rtol=tolerance, atol=0)


@pytest.mark.parametrize("beta_schedule", ["linear", "scaled_linear"])
def test_table_equals_float64(beta_schedule):
    table, product = [], 1.0
    for t in range(1000):
        ends = (0.00085, 0.012) if beta_schedule == "linear" else (0.00085**0.5, 0.012**0.5)
        beta = (ends[0] + (ends[1] - ends[0]) * t / 999) ** (1 if beta_schedule == "linear" else 2)
        product *= 1 - beta
        table.append(((1 - product) / product) ** 0.5)
    torch.testing.assert_close(schedule.sigma_table(beta_schedule).double(), torch.tensor(table, dtype=torch.float64), rtol=1e-7, atol=0)


@ROWS
def test_sigmas_are_entries_of_the_table_and_end_at_zero(row):
    table = schedule.sigma_table(row.beta_schedule)
    sigmas = schedule.sigmas(row, 0)
    assert torch.equal(sigmas[:-1], table[schedule.timesteps(row, row.steps)]) and sigmas[-1] == 0
    assert set(schedule.timesteps(row, row.steps)) <= set(schedule.distilled_timesteps(row))


@pytest.mark.parametrize("denoise", [0.1, 0.3, 0.5, 0.6, 0.75])
@pytest.mark.parametrize("name", ["AnimateLCM", "AnimateLCM (repo)", "AnimateDiff v2/v3 with LCM-LoRA"])
def test_denoise_of_an_lcm_is_diffusers_strength(name, denoise):
    row = ADAPTERS[name]
    for steps in range(1, int(row.distilled_steps * denoise) + 1):
        timesteps, _ = reference(row, steps, strength=denoise)
        assert schedule.timesteps(row, steps, denoise) == timesteps.tolist()


def test_denoise_keeps_the_tail_of_lightnings_grid():
    row = ADAPTERS["AnimateDiff-Lightning 4 step"]
    assert schedule.timesteps(row, 4, 1.0) == [999, 749, 499, 249]
    assert schedule.timesteps(row, 4, 0.75) == [749, 499, 249]
    assert schedule.timesteps(row, 4, 0.5) == [499, 249]
    assert schedule.timesteps(row, 4, 0.01) == [249]


@ROWS
@pytest.mark.parametrize("denoise", [0.01, 0.2, 0.5, 0.99])
def test_denoise_leaves_at_least_one_step_and_starts_below_its_share(row, denoise):
    for steps in (1, 4, row.max_steps):
        timesteps = schedule.timesteps(row, steps, denoise)
        assert 1 <= len(timesteps) <= steps
        assert timesteps == sorted(set(timesteps), reverse=True)
        assert len(timesteps) == 1 or timesteps[0] <= 1000 * denoise


def test_impossible_requests_say_what_to_do():
    lcm = ADAPTERS["AnimateLCM"]
    with pytest.raises(ValueError, match="steps is 51, but AnimateLCM was distilled on 50 timesteps; use 1 to 50, or 0"):
        schedule.timesteps(lcm, 51)
    for denoise in (0.0, -0.5, 1.01):
        with pytest.raises(ValueError, match="denoise is"):
            schedule.timesteps(lcm, 4, denoise)
    with pytest.raises(ValueError, match="beta_schedule 'cosine' is unknown"):
        schedule.sigma_table("cosine")
