"""Random weights under the file names of the bundled workflows, in the formats in which those files are published."""

import subprocess

import server
import stacks
import torch
from safetensors.torch import save_file

from animatediff_turbo.motion_modules import convert

# ComfyUI knows SD1.5 by its top width and text width; equal widths below keep the UNet at a tenth of its size
NARROW = (320, 320, 320, 320)
FULL = (320, 640, 1280, 1280)


def install(base, comfyui, widths=NARROW):
    """Writes checkpoint, adapters and LoRA into base/models; keeps what is there."""
    models = base / "models"
    for name in ("checkpoints", "animatediff_models", "loras"):
        (models / name).mkdir(parents=True, exist_ok=True)
    checkpoint = models / "checkpoints" / "v1-5-pruned-emaonly-fp16.safetensors"
    if not checkpoint.exists():
        script = str(server.ROOT / "tests" / "comfyui" / "make_checkpoint.py")
        subprocess.run([server.python(comfyui), script, str(checkpoint), *map(str, widths)], cwd=comfyui, check=True, capture_output=True)
    weights = stacks.motion_weights(stacks.Layout(widths, 2, True), dtype=torch.float16)
    save_file(convert.to_original(weights), models / "animatediff_models" / "animatediff_lightning_4step_comfyui.safetensors")
    torch.save(convert.to_original(weights, None), models / "animatediff_models" / "AnimateLCM_sd15_t2v.ckpt")
    save_file(lora(widths[0]), models / "loras" / "AnimateLCM_sd15_t2v_lora.safetensors")


def lora(width):
    """Some layers of AnimateLCM's spatial LoRA under its key names: rank 64, alpha 8."""
    generator, tensors = torch.Generator().manual_seed(0), {}
    for attention in ("down_blocks_0_attentions_0", "down_blocks_0_attentions_1", "up_blocks_3_attentions_2"):
        for layer in ("attn1_to_q", "attn1_to_v", "attn2_to_out_0"):
            key = f"lora_unet_{attention}_transformer_blocks_0_{layer}"
            tensors[f"{key}.lora_down.weight"] = (torch.randn(64, width, generator=generator) * width**-0.5).half()
            tensors[f"{key}.lora_up.weight"] = (torch.randn(width, 64, generator=generator) * 0.1).half()
            tensors[f"{key}.alpha"] = torch.tensor(8.0).half()
    return tensors
