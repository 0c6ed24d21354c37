"""A narrow SD1.5 stack as diffusers builds it, the files that ComfyUI loads of it, and diffusers' pipeline on the same weights."""

import json
from dataclasses import dataclass
from pathlib import Path

import stacks
import torch
from diffusers import AnimateDiffPipeline, AutoencoderKL, EulerDiscreteScheduler, UNetMotionModel
from safetensors.torch import save_file
from test_sampling import GivenNoise
from test_schedule import BETAS

from animatediff_turbo.motion_modules import convert

WIDTHS, CONTEXT, FRAMES, SIDE, SEED = (32, 64, 128, 128), 64, 8, 8, 5
MOTION_GAIN = 3.0  # so that the motion module visibly acts; its default is weak beside the residual


@dataclass(frozen=True)
class Stack:
    """Files for ComfyUI and the same weights in diffusers."""

    folder: Path
    unet: UNetMotionModel
    conds: dict[str, torch.Tensor]

    @property
    def unet_file(self):
        return str(self.folder / "unet.safetensors")

    @property
    def conds_file(self):
        return str(self.folder / "conds.safetensors")


def build_unet(widths=WIDTHS, context=CONTEXT, seed=0):
    """Random weights; the motion modules visibly act, and eps has about unit deviation."""
    torch.manual_seed(seed)
    unet = UNetMotionModel(
        sample_size=SIDE, in_channels=4, out_channels=4, layers_per_block=2, norm_num_groups=32, num_attention_heads=8,
        motion_num_attention_heads=8, motion_max_seq_length=32, use_motion_mid_block=True, block_out_channels=widths, cross_attention_dim=context,
    ).eval()  # fmt: skip
    layout = stacks.Layout(widths, 2, True)
    unet.load_state_dict(stacks.motion_weights(layout, gain=MOTION_GAIN, seed=seed), strict=False)
    sample = torch.randn(1, 4, FRAMES, SIDE, SIDE)
    with torch.no_grad():
        deviation = unet(sample, 500, torch.randn(FRAMES, 8, context)).sample.std()
        unet.conv_out.weight /= deviation
        unet.conv_out.bias /= deviation
    return unet.requires_grad_(False)


def write(folder, unet, **options):
    """unet.safetensors (+ .json) and conds.safetensors for ComfyUI. Returns the Stack."""
    widths, context = unet.config.block_out_channels, unet.config.cross_attention_dim
    spatial = {key: tensor.contiguous() for key, tensor in unet.state_dict().items() if "motion_modules" not in key}
    save_file(spatial, folder / "unet.safetensors")
    (folder / "unet.json").write_text(json.dumps({"widths": widths, "context": context} | options))
    generator = torch.Generator().manual_seed(1)
    conds = {name: torch.randn(1, 8, context, generator=generator) for name in ("positive", "negative")}
    save_file(conds, folder / "conds.safetensors")
    return Stack(folder, unet, conds)


def motion_state_dict(unet):
    """The UNet's motion tensors under our names."""
    return {name: unet.state_dict()[key] for name, key in convert.to_ours(unet.state_dict()).items()}


def noise(frames=FRAMES, side=SIDE, seed=SEED):
    """ComfyUI's starting noise: one CPU draw for the whole clip, (f, 4, h, w)."""
    return torch.randn(frames, 4, side, side, generator=torch.manual_seed(seed))


def reference(stack, row, steps, guidance, frames=FRAMES, videos=1, side=SIDE, unet=None):
    """diffusers' AnimateDiffPipeline from ComfyUI's noise; latents (f, 4, h, w). videos > 1 cuts the clip into shorter ones."""
    if row.spacing == "lcm":
        scheduler = GivenNoise(**BETAS, beta_schedule=row.beta_schedule, original_inference_steps=row.distilled_steps, clip_sample=False)
        generator = torch.Generator().manual_seed(SEED + 1)
        draws = [torch.randn(frames, 4, side, side, generator=generator) for _ in range(steps)]
        scheduler.noises = [fold(draw, videos) for draw in draws]
        scale = 1.0
    else:
        scheduler = EulerDiscreteScheduler(**BETAS, beta_schedule=row.beta_schedule, timestep_spacing="trailing")
        # ComfyUI starts from noise * sqrt(sigma_max**2 + 1), which is what Lightning was trained on; diffusers from noise * sigma_max
        sigma = scheduler.sigmas.max()
        scale = (1 + sigma**-2).sqrt()
    torch.manual_seed(0)
    vae = AutoencoderKL(block_out_channels=(32,) * 4, down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4, latent_channels=4)
    pipe = AnimateDiffPipeline(vae=vae, text_encoder=None, tokenizer=None, unet=unet or stack.unet, motion_adapter=None, scheduler=scheduler)
    pipe.set_progress_bar_config(disable=True)
    conds = {f"{kind}prompt_embeds": stack.conds[name].expand(videos, -1, -1) for kind, name in {"": "positive", "negative_": "negative"}.items()}
    latents = pipe(
        **conds, num_frames=frames // videos, height=side * 8, width=side * 8, num_inference_steps=steps, guidance_scale=guidance,
        latents=fold(noise(frames, side), videos) * scale, output_type="latent",
    ).frames  # fmt: skip
    return latents.permute(0, 2, 1, 3, 4).flatten(0, 1)


def fold(clip, videos):
    """(f, 4, h, w) to diffusers' (videos, 4, f / videos, h, w)."""
    return clip.unflatten(0, (videos, -1)).permute(0, 2, 1, 3, 4).contiguous()
