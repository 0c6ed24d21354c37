"""The losses of the diffusion model's three stages, in the order of the field: image model, motion module, consistency distillation."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from diffusers import UNet2DConditionModel
from torch import Tensor
from transformers import CLIPTextModel, PreTrainedTokenizerFast

from ...motion_modules import schedule
from ...motion_modules.config import Adapter
from ...motion_modules.model import MotionModel
from ..diffusion import clean, predict
from ..motion import attached
from . import words
from .loop import Dice
from .world import FRAMES, Scene

MIN_SNR = 5.0
"""arXiv 2303.09556: samples with less noise than this count less."""
HUBER = 0.1
"""Errors below it count squared, larger ones as they are."""
DRAWS = 3
"""Timesteps of clips are the largest of this many: where frames come from is decided in much noise, and a still with little of it needs no other frames."""
LEVEL_DRAWS = 2
"""The same for the levels of distillation, of which the student has to get every one right."""
OWN = 0.5
"""Share of clips in distillation that are the student's own, noised again as sampling does it (arXiv 2405.14867, 4.5): among true clips
it never sees a shape that its own first step sent the wrong way."""
BLANK = 0.2
"""Share of clips that are trained on the last timestep without any picture in the noise, which is where sampling starts (arXiv 2305.08891): there
the motion module has nothing but the words to tell it which way things move."""
DROPPED = 0.1
"""Share of captions replaced by nothing, for classifier-free guidance (arXiv 2207.12598)."""


@dataclass(frozen=True)
class Stack:
    """What is sampled: the text side and the UNet, on one device. sigmas: (1000,), of the noise schedule that it is trained on, there too."""

    tokenizer: PreTrainedTokenizerFast
    text_encoder: CLIPTextModel
    unet: UNet2DConditionModel
    sigmas: Tensor

    def encode(self, captions: Sequence[str]) -> Tensor:
        """(n, tokens, width)."""
        tokens = self.tokenizer(list(captions), padding="max_length", truncation=True, return_tensors="pt").input_ids.to(self.text_encoder.device)
        return self.text_encoder(tokens)[0]


def caption(scene: Scene, dice: Dice) -> str:
    """A random wording, or now and then nothing."""
    return "" if dice.python.random() < DROPPED else words.caption(scene, dice.python)


def noise_loss(stack: Stack, x: Tensor, timesteps: Tensor, text: Tensor, dice: Dice, blank: Tensor | None = None) -> Tensor:
    """The weighted squared error of the predicted noise. x: (n, 4, h, w); timesteps: (n,); text: (n, tokens, width); blank: (n,) bool, hides x in the noise.

    Where there is more noise than picture, its weight grows with sigma, halfway between the error of the noise and that of the clean picture: at 4 steps
    what is asked for is decided there, and an error of a hundredth of the noise is a quarter of the picture.
    """
    sigma = stack.sigmas[timesteps]
    noise, spread = dice.normal(x), sigma[:, None, None, None]
    shown = x if blank is None else x.masked_fill(blank[:, None, None, None], 0)
    predicted = predict(stack.unet, shown + spread * noise, sigma, timesteps, text)
    weight = (MIN_SNR * sigma**2).clamp(max=1) * sigma.clamp(min=1)
    return (weight * (predicted - noise + (x - shown) / spread).square().mean((1, 2, 3))).mean()


def image_loss(stack: Stack, clips: Tensor, scenes: Sequence[Scene], batch: int, dice: Dice) -> Tensor:
    """Stills: random frames of random clips, (clips, f, 4, h, w)."""
    chosen = [dice.python.randrange(len(scenes)) for _ in range(batch)]
    x = torch.stack([clips[number, dice.python.randrange(clips.shape[1])] for number in chosen]).float()
    text = stack.encode([caption(scenes[number], dice) for number in chosen])
    return noise_loss(stack, x, dice.timesteps(batch, x.device), text, dice)


def motion_loss(stack: Stack, motion: MotionModel, clips: Tensor, scenes: Sequence[Scene], batch: int, dice: Dice) -> Tensor:
    """Whole clips, one timestep and one caption each; noise is drawn for every frame anew (arXiv 2307.04725)."""
    x, text = _whole(stack, clips, scenes, batch, dice)
    blank = torch.tensor([dice.python.random() < BLANK for _ in range(batch)], device=x.device)
    timesteps = dice.timesteps(batch, x.device, DRAWS).masked_fill(blank, len(stack.sigmas) - 1)
    with attached(stack.unet, motion, FRAMES):
        return noise_loss(stack, x, timesteps.repeat_interleave(FRAMES), text, dice, blank.repeat_interleave(FRAMES))


@torch.no_grad()
def _whole(stack: Stack, clips: Tensor, scenes: Sequence[Scene], batch: int, dice: Dice) -> tuple[Tensor, Tensor]:
    chosen = [dice.python.randrange(len(scenes)) for _ in range(batch)]
    text = stack.encode([caption(scenes[number], dice) for number in chosen])
    return clips[chosen].float().flatten(0, 1), text.repeat_interleave(FRAMES, 0)


@dataclass(frozen=True)
class Teacher:
    """The motion module before distillation. guidance: baked into the student; substeps: Euler steps from one entry of the grid to the next."""

    motion: MotionModel
    guidance: float
    substeps: int


def consistency_loss(
    stack: Stack, student: MotionModel, teacher: Teacher, adapter: Adapter, clips: Tensor, scenes: Sequence[Scene], batch: int, dice: Dice
) -> Tensor:
    """How far the student's clean clip at one noise level is from its own one level below on the teacher's path.

    Source: arXiv 2303.01469 and, for motion modules, 2402.00769; the loss and the target without a moving average are from 2310.14189.

    Args:
        adapter: its distilled timesteps are the grid.
    """
    x, text = _whole(stack, clips, scenes, batch, dice)
    grid = [None, *schedule.distilled_timesteps(adapter)]
    level = max(dice.python.randrange(1, len(grid)) for _ in range(LEVEL_DRAWS))
    start, end = grid[level], grid[level - 1]
    if dice.python.random() < OWN:
        x = _sampled(stack, student, adapter, start, x, text, dice)
    x = stack.sigmas[start] * dice.normal(x) + (x if level < len(grid) - 1 else 0)  # sampling starts from nothing but noise
    with torch.no_grad():
        empty = stack.encode([""]).expand(len(x), -1, -1)
        below = _solve(stack, teacher, x, start, end, text, empty)
        target = below if end is None else _denoise(stack, student, below, end, text)
    error = _denoise(stack, student, x, start, text) - target
    return ((error.square() + HUBER**2).sqrt() - HUBER).mean()


@torch.no_grad()
def _sampled(stack: Stack, student: MotionModel, adapter: Adapter, end: int, x: Tensor, text: Tensor, dice: Dice) -> Tensor:
    """The student's clean clips at the adapter's own steps from nothing but noise down to timestep end, not with it. x: where there is none."""
    x = torch.zeros_like(x)
    for timestep in schedule.timesteps(adapter, adapter.steps):
        if timestep <= end:
            break
        x = _denoise(stack, student, x + stack.sigmas[timestep] * dice.normal(x), timestep, text)
    return x


def _denoise(stack: Stack, motion: MotionModel, x: Tensor, timestep: int, text: Tensor) -> Tensor:
    timesteps = torch.full((len(x),), timestep, device=x.device)
    sigma = stack.sigmas[timesteps]
    with attached(stack.unet, motion, FRAMES):
        return clean("epsilon", x, sigma, predict(stack.unet, x, sigma, timesteps, text))


def _solve(stack: Stack, teacher: Teacher, x: Tensor, start: int, end: int | None, text: Tensor, empty: Tensor) -> Tensor:
    """Euler's path from timestep start to end, or to the clean clip."""
    stops = [round(start + ((end or 0) - start) * i / teacher.substeps) for i in range(teacher.substeps)]
    levels = [stack.sigmas[stop] for stop in stops] + [stack.sigmas[end] if end is not None else torch.tensor(0.0)]
    for stop, sigma, following in zip(stops, levels, levels[1:], strict=False):
        denoised = _denoise(stack, teacher.motion, x, stop, text)
        if teacher.guidance != 1:
            without = _denoise(stack, teacher.motion, x, stop, empty)
            denoised = without + teacher.guidance * (denoised - without)
        x = denoised + (x - denoised) * (following / sigma)
    return x
