"""The samplers against diffusers' schedulers on a model with a known answer."""

import pytest
import stacks
import torch
from diffusers import EulerDiscreteScheduler, LCMScheduler
from test_schedule import BETAS
from torch.utils._python_dispatch import TorchDispatchMode

from animatediff_turbo.motion_modules import sampling, schedule
from animatediff_turbo.motion_modules.config import ADAPTERS

SHAPE = (4, 4, 8, 8)


def eps(x, timestep):
    """A made-up noise prediction of unit size that depends on position and time; x in diffusers' (variance preserving) scale."""
    return torch.tanh(1.7 * x.roll(1, -1) + timestep / 500) + 0.1 * x


class Denoiser:
    """eps in k-diffusion's scale, counting its calls."""

    def __init__(self, row):
        self.table, self.calls = schedule.sigma_table(row.beta_schedule), 0

    def __call__(self, x, sigma, **extra_args):
        self.calls += 1
        assert sigma.shape == (x.shape[0],)
        timestep = int((self.table - sigma[0]).abs().argmin())
        sigma = sigma[:, None, None, None]
        return x - sigma * eps(x / (sigma**2 + 1).sqrt(), timestep)


@pytest.mark.parametrize("steps", [1, 2, 3, 4, 8, 12])
def test_euler_equals_diffusers(steps):
    row = ADAPTERS["AnimateDiff-Lightning 4 step"]
    scheduler = EulerDiscreteScheduler(**BETAS, beta_schedule="linear", timestep_spacing="trailing")
    scheduler.set_timesteps(steps)
    noise = torch.randn(SHAPE, generator=torch.manual_seed(0))
    expected = noise * scheduler.init_noise_sigma
    start = expected.clone()
    for t in scheduler.timesteps:
        expected = scheduler.step(eps(scheduler.scale_model_input(expected, t), t), t, expected).prev_sample
    model, seen = Denoiser(row), []
    found = sampling.sample_euler(model, start, schedule.sigmas(row, steps), callback=lambda state: seen.append(state["i"]))
    assert stacks.relative(found, expected) < 3e-6
    assert seen == list(range(steps)) and model.calls == steps


class GivenNoise(LCMScheduler):
    """An LCMScheduler whose fresh noise is handed in."""

    noises = ()

    def step(self, model_output, timestep, sample, **options):
        out = super().step(model_output, timestep, sample, **options)
        if self.step_index < len(self.timesteps):
            alpha = self.alphas_cumprod[self.timesteps[self.step_index]]
            out.prev_sample = alpha.sqrt() * out.denoised + (1 - alpha).sqrt() * self.noises[self.step_index - 1]
        return out


@pytest.mark.parametrize("name", ["AnimateLCM", "AnimateLCM (repo)", "AnimateDiff v2/v3 with LCM-LoRA"])
@pytest.mark.parametrize("steps", [1, 2, 4, 8, 12])
def test_lcm_equals_diffusers_and_draws_seeded_noise(name, steps):
    row = ADAPTERS[name]
    scheduler = GivenNoise(**BETAS, beta_schedule=row.beta_schedule, original_inference_steps=row.distilled_steps)
    scheduler.set_timesteps(steps)
    generator = torch.Generator().manual_seed(7 + 1)
    scheduler.noises = [torch.randn(SHAPE, generator=generator) for _ in range(steps)]
    expected = torch.randn(SHAPE, generator=torch.manual_seed(0))
    sigmas = schedule.sigmas(row, steps)
    start = expected * (1 + sigmas[0] ** 2).sqrt()
    for t in scheduler.timesteps:
        expected = scheduler.step(eps(expected, t), t, expected).prev_sample
    found = sampling.sample_lcm(Denoiser(row), start, sigmas, extra_args={"seed": 7})
    assert stacks.relative(found, expected) < 1e-5


def test_a_split_lcm_schedule_equals_the_whole():
    row = ADAPTERS["AnimateLCM"]
    sigmas = schedule.sigmas(row, 4)
    x = torch.randn(SHAPE, generator=torch.manual_seed(0)) * sigmas[0]
    noises = [torch.randn(SHAPE, generator=torch.manual_seed(i)) for i in range(4)]

    def draw():
        stock = iter(noises)
        return lambda sigma, sigma_next: next(stock)

    whole = sampling.sample_lcm(Denoiser(row), x, sigmas, noise_sampler=draw())
    sampler = draw()
    first = sampling.sample_lcm(Denoiser(row), x, sigmas[:3], noise_sampler=sampler)
    assert torch.equal(sampling.sample_lcm(Denoiser(row), first, sigmas[2:], noise_sampler=sampler), whole)


def test_seeded_noise_repeats_and_differs_from_the_starting_noise():
    x = torch.zeros(SHAPE)
    first, again = sampling.seeded_noise(x, 3), sampling.seeded_noise(x, 3)
    one = first(None, None)
    assert torch.equal(one, again(None, None)) and not torch.equal(one, first(None, None))
    assert not torch.equal(one, torch.randn(SHAPE, generator=torch.manual_seed(3)))


@pytest.mark.parametrize("sampler", sampling.SAMPLERS.values())
def test_no_steps_change_nothing(sampler):
    x = torch.ones(SHAPE)
    assert torch.equal(sampler(None, x, torch.tensor([1.0])), x)


class Syncs(TorchDispatchMode):
    """Counts the reads of a single number, for each of which a GPU's queue has to run empty."""

    count = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.count += function is torch.ops.aten._local_scalar_dense.default
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize("sampler", sampling.SAMPLERS.values())
def test_steps_wait_for_no_device(sampler):
    counts = []
    for steps in (1, 9):
        sigmas = torch.cat([torch.linspace(9, 1, steps), torch.zeros(1)])
        with Syncs() as syncs:
            sampler(lambda x, sigma: x * 0.5, torch.ones(SHAPE), sigmas)
        counts.append(syncs.count)
    assert counts[0] == counts[1] <= 1
