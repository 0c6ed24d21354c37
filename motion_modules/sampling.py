"""The samplers that turbo adapters were trained for, with k-diffusion's signature and no device sync inside the loop."""

from collections.abc import Callable, Mapping
from types import MappingProxyType

import torch
from torch import Tensor

Denoiser = Callable[..., Tensor]
NoiseSampler = Callable[[Tensor, Tensor], Tensor]


def seeded_noise(x: Tensor, seed: int | None) -> NoiseSampler:
    """Unit noise of x's shape from a generator of its own, the same numbers as ComfyUI's samplers draw for this seed.

    On the CPU the seed is raised by one: the starting noise came from the seed itself and must not be drawn again.
    """
    generator = None
    if seed is not None:
        generator = torch.Generator(device=x.device)
        generator.manual_seed((seed + (x.device.type == "cpu")) % 2**64)
    return lambda sigma, sigma_next: torch.randn(x.shape, dtype=x.dtype, device=x.device, generator=generator)


@torch.no_grad()
def sample_euler(
    model: Denoiser,
    x: Tensor,
    sigmas: Tensor,
    extra_args: Mapping | None = None,
    callback: Callable[[dict], None] | None = None,
    disable: bool | None = None,
) -> Tensor:
    """Euler steps of the probability flow (Karras et al. 2022, algorithm 2 without churn).

    Args:
        model: model(x, sigma of each frame, **extra_args) -> denoised, x's shape.
        x: (f, c, h, w), noise at sigmas[0].
        sigmas: (steps + 1,), descending, on x's device.
        extra_args: passed on to model.
        callback: called after each evaluation with x, i, sigma, sigma_hat and denoised.
        disable: accepted for k-diffusion's signature; there is no progress bar here.
    Returns: x's shape, at sigmas[-1].
    """
    ones = x.new_ones(x.shape[0])
    for i in range(len(sigmas) - 1):
        denoised = model(x, sigmas[i] * ones, **(extra_args or {}))
        if callback is not None:
            callback({"x": x, "i": i, "sigma": sigmas[i], "sigma_hat": sigmas[i], "denoised": denoised})
        x = x + (x - denoised) / sigmas[i] * (sigmas[i + 1] - sigmas[i])
    return x


@torch.no_grad()
def sample_lcm(
    model: Denoiser,
    x: Tensor,
    sigmas: Tensor,
    extra_args: Mapping | None = None,
    callback: Callable[[dict], None] | None = None,
    disable: bool | None = None,
    noise_sampler: NoiseSampler | None = None,
) -> Tensor:
    """Multistep consistency sampling (Luo et al. 2023, algorithm 3): denoise fully, add fresh noise for the next step.

    Args: as `sample_euler`.
        extra_args: its "seed" seeds the noise.
        noise_sampler: noise_sampler(sigma, sigma_next) -> unit noise of x's shape; `seeded_noise` when None.
    Returns: x's shape, at sigmas[-1].
    """
    extra_args = extra_args or {}
    noise_sampler = noise_sampler or seeded_noise(x, extra_args.get("seed"))
    ones = x.new_ones(x.shape[0])
    steps = len(sigmas) - 1
    # a part of a schedule (SplitSigmas) may end above 0 and needs noise there too; asked once, before the first step
    renoised = steps if steps and float(sigmas[-1]) > 0 else steps - 1
    for i in range(steps):
        denoised = model(x, sigmas[i] * ones, **extra_args)
        if callback is not None:
            callback({"x": x, "i": i, "sigma": sigmas[i], "sigma_hat": sigmas[i], "denoised": denoised})
        x = denoised
        if i < renoised:
            x = x + sigmas[i + 1] * noise_sampler(sigmas[i], sigmas[i + 1])
    return x


SAMPLERS: Mapping[str, Callable[..., Tensor]] = MappingProxyType({"euler": sample_euler, "lcm": sample_lcm})
