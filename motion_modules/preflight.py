"""What will go wrong in a run, said before its first step.

Frame counts and guidance: the model cards, and what users of the peers report most. Nothing here stops a run that can work.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from . import schedule
from .config import LCM_LORA, Adapter

FEWEST_FRAMES = 12
"""Motion modules are trained on 16 frames; with fewer than this they show noise or no motion."""
FEWEST_STEPS = 10
"""Adapters that are not distilled show shreds with fewer over the whole schedule."""
FULL_NOISE = 850
"""A timestep from which on an empty latent becomes a picture; every whole schedule of FEWEST_STEPS begins above it."""
NEAR = 1e-3
"""Relative difference up to which a sigma is a trained timestep's; the nearest two differ by more."""


@dataclass(frozen=True)
class Run:
    """One sampling run.

    frames: of the clip.
    window: frames that the UNet is given at once, fewer than frames with context windows.
    sigmas: (steps + 1,), descending.
    guidance: 1 is none.
    sampler: k-diffusion's name without "sample_", "" when unknown.
    lora: whether any weight of the base is patched.
    foreign_schedule: what replaced the adapter's schedule, "" when nothing did.
    foreign: names of others that change the same layers.
    prompt_frames: of the prompts that have a row for each frame, 1 when none has.
    hint_frames: how many pictures each ControlNet has.
    empty: whether the latent has nothing in it but the noise.
    """

    frames: int
    window: int
    sigmas: Tensor
    guidance: float
    sampler: str
    lora: bool
    foreign_schedule: str = ""
    foreign: tuple[str, ...] = ()
    prompt_frames: int = 1
    hint_frames: frozenset[int] = frozenset()
    empty: bool = True


def check_frames(file: str, max_frames: int, frames: int) -> None:
    """Raises ValueError when a motion module that knows max_frames is given more frames at once."""
    if frames > max_frames:
        raise ValueError(
            f"{frames} frames at once, but {file} knows {max_frames}; use fewer, or add Context Windows (Manual) with "
            f"a context_length up to {max_frames - 1}, or {max_frames} with causal_window_fix off."
        )


def check_windows(length: int, overlap: int, dim: int, frames: int) -> None:
    """Raises ValueError for windows of a clip's frames that do not cover them. overlap: 0 where none is made."""
    if dim != 0:
        raise ValueError(f"Context Windows (Manual) cuts dimension {dim} of the latent, and frames are dimension 0; set dim to 0.")
    if overlap >= length and length < frames:
        fix = f"set an overlap below the length, such as {length // 4}"
        raise ValueError(f"Context Windows (Manual) has context_overlap {overlap} and context_length {length}; {fix}.")


def check_latent(shape: tuple[int, ...], channels: int) -> None:
    """Raises ValueError for latents of another kind of model."""
    if len(shape) != 4 or shape[1] != channels:
        raise ValueError(f"The latent has the shape {tuple(shape)}, and a clip's is (frames, {channels}, height / 8, width / 8); use Empty Video Latent.")


def check_width(found: int, wanted: int) -> None:
    """Raises ValueError for prompts of another model's text encoder."""
    if found != wanted:
        raise ValueError(
            f"A prompt comes from a text encoder {found} numbers wide and this model's is {wanted}; connect CLIP of the checkpoint that the model is from."
        )


def timesteps(adapter: Adapter, sigmas: Tensor) -> list[float]:
    """The adapter's timestep of each sigma but the final one; with a half where it lies between two. sigmas: (steps + 1,)."""
    table = schedule.sigma_table(adapter.beta_schedule)
    found = []
    for sigma in sigmas[:-1].float().cpu():
        nearest = int((table.log() - sigma.log()).abs().argmin())
        found.append(nearest if torch.isclose(table[nearest], sigma, rtol=NEAR, atol=0) else nearest + 0.5)
    return found


def summary(adapter: Adapter, run: Run) -> str:
    """One line about a run: frames, timesteps, sampler and guidance."""
    steps = len(run.sigmas) - 1
    noise = f"{steps} step{'s' * (steps != 1)}" if run.foreign_schedule else f"timesteps {', '.join(str(int(t)) for t in timesteps(adapter, run.sigmas))}"
    return f"{adapter.name}: {run.frames} frame{'s' * (run.frames != 1)}, {noise}, {run.sampler or 'own sampler'}, guidance {run.guidance:g}."


def warnings(adapter: Adapter, file: str, run: Run) -> list[str]:
    """A sentence, with its fix, for everything that makes this run look worse than file can."""
    return [*_frames(run), *_schedule(adapter, file, run), *_guidance(adapter, file, run), *_model(adapter, run)]


def _frames(run: Run) -> Iterator[str]:
    if run.window < FEWEST_FRAMES:
        where = "This clip has" if run.window == run.frames else "Context Windows hand over"
        frames = "frame" if run.window == 1 else "frames"
        yield f"{where} {run.window} {frames}, and motion needs {FEWEST_FRAMES} or more (16 are best); use more frames."
    if run.prompt_frames not in (1, run.frames):
        yield f"A prompt was made for {run.prompt_frames} frames and this clip has {run.frames}; set frames in Prompt Travel to {run.frames}."
    for pictures in sorted(run.hint_frames - {1, run.frames}):
        yield f"A ControlNet has {pictures} pictures and this clip {run.frames} frames; give it one, or one for each frame."


def _schedule(adapter: Adapter, file: str, run: Run) -> Iterator[str]:
    if run.foreign_schedule:
        yield f"{run.foreign_schedule} has replaced the noise schedule that {file} was trained on; remove the node that sets it, such as ModelSamplingDiscrete."
        return
    yield from _noise(adapter, file, run)
    if adapter.step_counts and not _known_steps(adapter, run):
        counts = " or ".join(map(str, adapter.step_counts))
        yield (
            f"{file} was distilled for {counts} steps and this run's {len(run.sigmas) - 1} are others; use Turbo Sampler with steps {adapter.steps}, "
            f"or {adapter.steps} steps and the scheduler simple."
        )
    elif adapter.distilled_steps and not set(timesteps(adapter, run.sigmas)) <= set(schedule.distilled_timesteps(adapter)):
        yield f"This run's noise levels lie between those that {file} was distilled on; use Turbo Sampler, or the scheduler simple."
    if run.sampler != adapter.sampler and adapter.highest_guidance < float("inf"):
        yield f"{file} was distilled for the sampler {adapter.sampler}, not for {run.sampler or 'this one'}; choose {adapter.sampler}."


def _noise(adapter: Adapter, file: str, run: Run) -> Iterator[str]:
    steps = len(run.sigmas) - 1
    ran = timesteps(adapter, run.sigmas)
    low = bool(ran) and run.empty and ran[0] < FULL_NOISE
    whole = bool(ran) and ran[0] >= FULL_NOISE and float(run.sigmas[-1]) == 0
    # with lcm the checkpoint, or a LoRA, is the distilled part
    if adapter.highest_guidance == float("inf") and steps < FEWEST_STEPS and (low or whole) and run.sampler != "lcm":
        few = f"{steps} step{'s are' if steps != 1 else ' is'} too few for {file}, which is not distilled"
        yield f"{few}; use {adapter.steps}, or a turbo adapter, or an LCM-LoRA and the family {LCM_LORA.name}."
    elif low:
        fix = "set denoise to 1 and the scheduler to simple, or encode a video for the latent"
        yield f"The latent is empty and this run begins with a part of the noise, at timestep {ran[0]:g}; {fix}."


def _known_steps(adapter: Adapter, run: Run) -> bool:
    """Whether the run's timesteps are the last ones of a trained grid (a lower denoise runs fewer); core's `simple` misses some by one."""
    ran = timesteps(adapter, run.sigmas)
    grids = [schedule.timesteps(adapter, count) for count in adapter.step_counts]
    return any(len(ran) <= len(grid) and all(abs(a - b) <= 1 for a, b in zip(ran, grid[-len(ran) :], strict=True)) for grid in grids)


def _guidance(adapter: Adapter, file: str, run: Run) -> Iterator[str]:
    if run.guidance > adapter.highest_guidance:
        yield f"Guidance {run.guidance:g} burns out {file}, which has it distilled in; use {adapter.guidance:g}, at most {adapter.highest_guidance:g}."


def _model(adapter: Adapter, run: Run) -> Iterator[str]:
    if adapter.lora and not run.lora:
        yield f"{adapter.name} needs its LoRA and this model has none; add {adapter.lora} with LoraLoaderModelOnly."
    for name in run.foreign:
        yield f"{name} changes the layers behind which motion runs; remove its nodes from this model, or Apply Motion Adapter."
