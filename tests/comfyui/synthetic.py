"""Random weights under the file names of the bundled workflows, in the formats in which those files are published."""

import subprocess

import server
import stacks
import torch
from safetensors.torch import save_file

from animatediff_turbo.headless.tiny import world
from animatediff_turbo.motion_modules import convert
from animatediff_turbo.video.encode import encode

# ComfyUI knows SD1.5 by its top width and text width; equal widths below keep the UNet at a tenth of its size
NARROW = (320, 320, 320, 320)
FULL = (320, 640, 1280, 1280)
SOUND = {"waveform": torch.sin(torch.arange(96_000) / 48_000 * 440 * 6.28)[None, None], "sample_rate": 48_000}


def install(base, comfyui, widths=NARROW):
    """Writes checkpoint, adapters, LoRA and interpolation model into base/models, and a video into base/input; keeps what is there."""
    models = base / "models"
    for name in ("checkpoints", "animatediff_models", "loras", "frame_interpolation"):
        (models / name).mkdir(parents=True, exist_ok=True)
    _make("make_checkpoint.py", comfyui, models / "checkpoints" / "v1-5-pruned-emaonly-fp16.safetensors", *widths)
    _make("make_interpolator.py", comfyui, models / "frame_interpolation" / "film_net_fp16.safetensors")
    (base / "input").mkdir(exist_ok=True)
    encode(world.render(world.Scene("circle", "red", "right", "black")), base / "input" / "example.mp4", 8, "mp4", audio=SOUND)
    weights = stacks.motion_weights(stacks.Layout(widths, 2, True), dtype=torch.float16)
    save_file(convert.to_original(weights), models / "animatediff_models" / "animatediff_lightning_4step_comfyui.safetensors")
    torch.save(convert.to_original(weights, None), models / "animatediff_models" / "AnimateLCM_sd15_t2v.ckpt")
    save_file(lora(widths[0]), models / "loras" / "AnimateLCM_sd15_t2v_lora.safetensors")


def _make(script, comfyui, path, *arguments):
    """Runs a script of this folder under ComfyUI's interpreter unless path is there."""
    if not path.exists():
        command = [server.python(comfyui), str(server.ROOT / "tests" / "comfyui" / script), str(path), *map(str, arguments)]
        subprocess.run(command, cwd=comfyui, check=True, capture_output=True)


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
