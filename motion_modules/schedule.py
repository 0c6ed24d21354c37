"""Timesteps and sigmas of each adapter's training, to the digit of diffusers' schedulers.

A sigma is the noise's deviation when the picture's is 1 (k-diffusion's scale); timesteps are 0..999.
"""

import math
from collections.abc import Callable, Mapping
from types import MappingProxyType

import torch
from torch import Tensor

from .config import Adapter

TRAIN_TIMESTEPS = 1000
BETA_START, BETA_END = 0.00085, 0.012


def sigma_table(beta_schedule: str) -> Tensor:
    """Sigma of every timestep, (1000,) float32, ascending.

    Args:
        beta_schedule: "linear" (betas rise evenly) or "scaled_linear" (their roots do), diffusers' names; ComfyUI calls
            the first "sqrt_linear" and the second "linear".
    """
    if beta_schedule == "linear":
        betas = torch.linspace(BETA_START, BETA_END, TRAIN_TIMESTEPS, dtype=torch.float64)
    elif beta_schedule == "scaled_linear":
        betas = torch.linspace(BETA_START**0.5, BETA_END**0.5, TRAIN_TIMESTEPS, dtype=torch.float64) ** 2
    else:
        raise ValueError(f"beta_schedule {beta_schedule!r} is unknown; use 'linear' or 'scaled_linear'.")
    alphas_cumprod = torch.cumprod(1 - betas, dim=0)
    return ((1 - alphas_cumprod) / alphas_cumprod).sqrt().float()


def _trailing(adapter: Adapter, steps: int, denoise: float) -> list[int]:
    """Evenly spaced, ending at the last timestep (diffusers "trailing"); a lower denoise keeps the tail of this grid.

    Lightning knows the timesteps of its own grid only, so fewer of them are run instead of others.
    """
    # numpy's arange(1000, 0, -1000 / steps).round(), digit by digit: it multiplies the step as it is after one subtraction
    # from 1000, which decides halves such as 687.5 at 48 steps
    step = TRAIN_TIMESTEPS - (TRAIN_TIMESTEPS - TRAIN_TIMESTEPS / steps)
    grid = [round(TRAIN_TIMESTEPS - i * step) - 1 for i in range(steps)]
    return [t for t in grid if t < TRAIN_TIMESTEPS * denoise] or grid[-1:]


def _leading(adapter: Adapter, steps: int, denoise: float) -> list[int]:
    """Evenly spaced from timestep 1 up (diffusers "leading", steps_offset 1), all below denoise * 1000."""
    span = max(1, _share(TRAIN_TIMESTEPS, denoise))
    steps = min(steps, span)
    return [i * (span // steps) + 1 for i in reversed(range(steps))]


def _lcm(adapter: Adapter, steps: int, denoise: float) -> list[int]:
    """Evenly picked from the grid that the adapter was distilled on (diffusers' LCMScheduler; denoise is its strength)."""
    grid = distilled_timesteps(adapter)
    grid = grid[: max(1, _share(len(grid), denoise))][::-1]
    steps = min(steps, len(grid))
    # numpy's floor(linspace(0, len, steps, endpoint=False)): the step is rounded first, which decides whole numbers
    step = len(grid) / steps
    return [grid[math.floor(i * step)] for i in range(steps)]


def _share(count: int, denoise: float) -> int:
    # 0.58 * 50 is 28.999999999999996
    return math.floor(count * denoise + 1e-6)


SPACINGS: Mapping[str, Callable[[Adapter, int, float], list[int]]] = MappingProxyType(
    {"trailing": _trailing, "leading": _leading, "lcm": _lcm}
)


def distilled_timesteps(adapter: Adapter) -> list[int]:
    """The ascending timesteps that the adapter was trained at: all 1000, or an LCM's grid such as 19, 39, ... 999."""
    count = adapter.distilled_steps or TRAIN_TIMESTEPS
    skip = TRAIN_TIMESTEPS // count
    return [skip * i - 1 for i in range(1, count + 1)]


def timesteps(adapter: Adapter, steps: int, denoise: float = 1.0) -> list[int]:
    """The timesteps that are run, descending.

    Args:
        adapter: the row.
        steps: 1 to the row's max_steps; 0 for its recommended number.
        denoise: above 0 up to 1. Below 1 the run starts nearer to the given latents: Lightning keeps the tail of its
            grid, the others spread the steps anew below the start; at least one step remains.
    Raises:
        ValueError: steps or denoise out of range.
    """
    steps = steps or adapter.steps
    if not 1 <= steps <= adapter.max_steps:
        limit = f"was distilled on {adapter.max_steps} timesteps" if adapter.distilled_steps else f"takes at most {adapter.max_steps}"
        raise ValueError(f"steps is {steps}, but {adapter.name} {limit}; use 1 to {adapter.max_steps}, or 0 for its own {adapter.steps}.")
    if not 0 < denoise <= 1:
        raise ValueError(f"denoise is {denoise}; use a value above 0 and up to 1.")
    return SPACINGS[adapter.spacing](adapter, steps, denoise)


def sigmas(adapter: Adapter, steps: int, denoise: float = 1.0) -> Tensor:
    """The sigmas of `timesteps` and a final 0: (number of timesteps + 1,) float32, exactly the entries of `sigma_table`."""
    table = sigma_table(adapter.beta_schedule)
    return torch.cat([table[timesteps(adapter, steps, denoise)], table.new_zeros(1)])
