"""The clips of the world as latents, encoded once and read by every later stage."""

import functools
import logging
from pathlib import Path

import torch
from diffusers import AutoencoderKL
from torch import Tensor

from . import world
from .loop import Dice, whole
from .networks import LATENT_SCALE

logger = logging.getLogger(__name__)

PER_FILE = 48


def scene(seed: int, index: int, spread: tuple[float, float]) -> world.Scene:
    """The clip of this number: the trained combinations in turn, each time at another place; for spread see `world.place`."""
    combination = world.TRAINED[index % len(world.TRAINED)]
    return world.place(combination, Dice.of(seed, "clip", index).python, spread)


@torch.no_grad()
def encode(vae: AutoencoderKL, frames: Tensor) -> Tensor:
    """frames (f, h, w, 3), 0 to 1, to latents (f, 4, h / 8, w / 8) as the UNet sees them, on vae's device."""
    pixels = (frames.permute(0, 3, 1, 2) * 2 - 1).to(vae.device, memory_format=torch.channels_last)
    return vae.encode(pixels).latent_dist.mean.contiguous() * LATENT_SCALE


def sample(vae: AutoencoderKL, seed: int, count: int) -> Tensor:
    """Latents of one frame of each of the first clips, at most one for each combination, (n, 4, 16, 16), on the scale of the VAE."""
    middles = [scene(seed, index, world.ANYWHERE) for index in range(min(count, len(world.TRAINED)))]
    return torch.cat([encode(vae, world.render(each, each.centres(1))) for each in middles]) / LATENT_SCALE


def clips(vae: AutoencoderKL, folder: Path, seed: int, count: int, spread: tuple[float, float]) -> Tensor:
    """The latents of clips 0 to count - 1, (count, 16, 4, 16, 16) float16 on vae's device, from folder as far as they are there."""
    folder.mkdir(exist_ok=True)
    tensors = []
    for start in range(0, count, PER_FILE):
        path = folder / f"{start:06}.pt"
        if not path.exists():
            numbers = range(start, min(start + PER_FILE, count))
            part = torch.stack([encode(vae, world.render(scene(seed, index, spread))).half().cpu() for index in numbers])
            whole(path, functools.partial(torch.save, part))
            logger.info("%s: %d of %d clips.", folder.name, numbers.stop, count)
        tensors.append(torch.load(path, weights_only=True))
    return torch.cat(tensors).to(vae.device)
