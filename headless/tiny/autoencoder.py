"""The first stage: the VAE, on pictures of the world, and the scaling of its latents."""

import torch
from diffusers import AutoencoderKL
from torch import Tensor

from . import start, world
from .loop import Dice
from .networks import LATENT_SCALE

CROP, CROPS, WHOLES = 64, 8, 2
WHOLE_SHARE = 0.2
SHAPES = 3
"""In one crop; crowded pictures teach more in a step than the world's own."""
DEVIATION = 0.01
"""Of a decoded colour (-1 to 1) in the likelihood: how much detail is worth a nat of latents. Larger makes the decoder forgive more noise."""
LOG_VARIANCE = -6.0
"""Of latents when training starts. At 0 the noise drowns a channel before the decoder has learned what it is for, and it stays unused."""


@torch.no_grad()
def prepare(vae: AutoencoderKL) -> AutoencoderKL:
    """Gives an untrained vae a start from which it learns: blocks that pass on what they get, and latents of LOG_VARIANCE."""
    start.pass_through(vae)
    vae.quant_conv.bias[vae.config.latent_channels :] = LOG_VARIANCE
    return vae


def pictures(dice: Dice, count: int, side: int, shapes: int) -> Tensor:
    """(count, 3, side, side), -1 to 1: random shapes with trails, anywhere, now and then half outside or not there."""
    frames = []
    for _ in range(count):
        scenes = [dice.python.choice(world.COMBINATIONS) for _ in range(shapes)]
        picture = world.rgb(world.BACKGROUNDS[scenes[0].background]).expand(side, side, 3)
        for scene in scenes:
            centre = torch.tensor([[dice.python.uniform(-16, side + 16), dice.python.uniform(-16, side + 16)]])
            picture = torch.lerp(picture, world.rgb(world.COLOURS[scene.colour]), world.opacity(scene, centre, side)[0, ..., None])
        frames.append(picture)
    return torch.stack(frames).permute(0, 3, 1, 2) * 2 - 1


def loss(vae: AutoencoderKL, dice: Dice) -> Tensor:
    """The negative evidence lower bound (arXiv 1312.6114) of random pictures for each pixel, times DEVIATION squared.

    Most steps see crowded crops, a few whole pictures with one shape.
    """
    count, side, shapes = (WHOLES, world.SIDE, 1) if dice.python.random() < WHOLE_SHARE else (CROPS, CROP, SHAPES)
    x = pictures(dice, count, side, shapes).to(vae.device, memory_format=torch.channels_last)
    posterior = vae.encode(x).latent_dist
    noise = dice.normal(posterior.mean)
    error = (vae.decode(posterior.mean + posterior.std * noise).sample - x).square().sum()
    return (error / 2 + DEVIATION**2 * posterior.kl().sum()) / (count * side**2)


@torch.no_grad()
def normalise(vae: AutoencoderKL, latents: Tensor) -> None:
    """Scales what vae encodes and decodes so that latents, (n, 4, h, w) as it encodes them now, get mean 0 and deviation 1 / LATENT_SCALE.

    The two 1x1 convolutions beside the latents take it up, so that no other program needs to know.
    """
    mean, gain = latents.mean((0, 2, 3)), latents.std((0, 2, 3)) * LATENT_SCALE
    before, after, channels = vae.quant_conv, vae.post_quant_conv, mean.numel()
    before.weight[:channels] /= gain[:, None, None, None]
    before.bias[:channels] = (before.bias[:channels] - mean) / gain
    before.bias[channels:] -= 2 * gain.log()  # the second half is the logarithm of the variance
    after.bias += (after.weight[:, :, 0, 0] * mean).sum(1)
    after.weight *= gain[None, :, None, None]
