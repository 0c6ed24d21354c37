"""First weights from which the UNet, the VAE and the motion module learn several times faster than from random ones."""

import torch
from diffusers.models.attention_processor import Attention
from diffusers.models.downsampling import Downsample2D
from diffusers.models.resnet import ResnetBlock2D
from diffusers.models.transformers.transformer_2d import Transformer2DModel
from diffusers.models.upsampling import Upsample2D
from torch import nn

from ...motion_modules.model import MotionModel

TOLD = 16
"""Channels of the motion module that know what all frames share and which frame it is."""
SHARPNESS = 2.0
"""Of the attention by which a frame looks at itself alone: what queries and keys are multiplied with."""
ENCODED = 8
"""From this channel on, the sines and cosines of the positional encoding turn slowly enough to rise or fall over 16 frames."""


@torch.no_grad()
def pass_through(network: nn.Module) -> None:
    """Makes every block of an untrained UNet or VAE, all of whose levels are equally wide, pass on what it gets.

    Residual branches end at zero (arXiv 1901.09321); halving starts as the mean of four places, doubling as a copy, and where a skip
    connection comes in, its channels and the others are added. So colours and places flow from end to end from the first step on.
    """
    for module in network.modules():
        if isinstance(module, ResnetBlock2D):
            _zero(module.conv2)
            if module.conv_shortcut is not None:
                _add_halves(module.conv_shortcut)
        elif isinstance(module, Transformer2DModel):
            _zero(module.proj_out)
        elif isinstance(module, Attention) and module.residual_connection:
            _zero(module.to_out[0])
        elif isinstance(module, Downsample2D):
            _zero(module.conv)
            each, start = range(module.conv.out_channels), module.padding
            module.conv.weight[each, each, start : start + 2, start : start + 2] = 1 / 4
        elif isinstance(module, Upsample2D):
            _zero(module.conv)
            nn.init.dirac_(module.conv.weight)


@torch.no_grad()
def compare_frames(motion: MotionModel) -> None:
    """Makes every temporal transformer of an untrained motion module work out what it will need, and add nothing.

    Most channels hold how a frame differs from the mean over frames: taking some of it off pulls the frames together, which is what they can do for
    each other in much noise, and the zero `proj_out` (arXiv 2307.04725) has only to find out how much. That takes out what all frames share, such as the
    words; the last `TOLD` channels keep it and get the number of the frame on top, so that the feed-forward layer has both: right, and late, is right.
    """
    for transformer in motion.transformers().values():
        _keep(transformer.proj_in, 1)
        _zero(transformer.proj_out)
        for block in transformer.transformer_blocks:
            for attention in (block.attn1, block.attn2):
                nn.init.eye_(attention.to_v.weight)
                _keep(attention.to_out[0], 0)
            block.attn1.to_out[0].weight.diagonal()[:-TOLD] = -1
            for projection in (block.attn2.to_q, block.attn2.to_k):  # every frame looks at itself
                nn.init.eye_(projection.weight).mul_(SHARPNESS)
            block.attn2.to_out[0].weight[-TOLD:, ENCODED : ENCODED + TOLD].fill_diagonal_(1)


def _keep(layer: nn.Linear, part: float) -> None:
    """Output i is a part of input i."""
    _zero(layer)
    layer.weight.diagonal().fill_(part)


def _zero(layer: nn.Conv2d | nn.Linear) -> None:
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)


def _add_halves(shortcut: nn.Conv2d) -> None:
    """Output i is input i and input i of the skip connection, with the deviation of one."""
    _zero(shortcut)
    width, each = shortcut.out_channels, range(shortcut.out_channels)
    shortcut.weight[each, each] = 0.5**0.5
    shortcut.weight[each, range(shortcut.in_channels - width, shortcut.in_channels)] = 0.5**0.5
