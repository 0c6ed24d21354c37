"""Floating point operations of one clip, counted on diffusers' UNet with motion without computing anything."""

import torch
from diffusers import UNetMotionModel
from scenarios import Scenario
from torch.utils.flop_counter import FlopCounterMode

import weights


def tflop(scenario: Scenario, size: str) -> float:
    """Of all steps, in 10^12."""
    latents, context = scenario.side // 8, weights.CONTEXT[size]
    with torch.device("meta"):
        unet = UNetMotionModel(
            in_channels=4, out_channels=4, layers_per_block=2, norm_num_groups=32, num_attention_heads=8, motion_num_attention_heads=8,
            motion_max_seq_length=max(32, scenario.frames), use_motion_mid_block=False, block_out_channels=weights.WIDTHS[size], cross_attention_dim=context,
        )  # fmt: skip
        sample = torch.empty(scenario.conds, 4, scenario.frames, latents, latents)
        embeddings = torch.empty(scenario.conds * scenario.frames, 77, context)
        counter = FlopCounterMode(display=False)
        with torch.no_grad(), counter:
            unet(sample, torch.tensor(500), embeddings)
    return counter.get_total_flops() * scenario.steps / 1e12
