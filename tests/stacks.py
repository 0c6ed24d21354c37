"""Random weights of the real names and shapes, scaled so that every part acts on the result."""

import torch

from animatediff_turbo.motion_modules.config import Layout
from animatediff_turbo.motion_modules.model import shapes

NARROW = Layout((32, 64, 128, 128), 2, True)
PUBLISHED = Layout((320, 640, 1280, 1280), 2, True)


def motion_weights(layout=NARROW, seed=0, dtype=torch.float32, gain=1.0, only=""):
    """Our names to tensors, those that start with `only`; proj_out is not zero, so that the module is not the identity."""
    generator = torch.Generator().manual_seed(seed)
    weights = {}
    for name, shape in shapes(layout).items():
        if not name.startswith(only):
            continue
        noise = torch.randn(shape, generator=generator)
        if len(shape) == 2:
            weights[name] = noise * shape[1] ** -0.5 * (gain if ".proj_out." in name else 1.0)
        elif name.endswith(".weight"):
            weights[name] = 1 + 0.1 * noise
        else:
            weights[name] = 0.1 * noise
    return {name: tensor.to(dtype) for name, tensor in weights.items()}


def relative(found, expected):
    """Relative L2 distance."""
    found, expected = found.detach().double(), expected.detach().double()
    return float((found - expected).norm() / expected.norm())


def motion_lora(layout=NARROW, rank=4, seed=7, gain=1.0):
    """A motion LoRA's changes by our names: (up, down) for every projection of temporal attention."""
    generator = torch.Generator().manual_seed(seed)
    result = {}
    for name, shape in shapes(layout).items():
        if ".attn" in name and name.endswith(".weight"):
            up, down = torch.randn(shape[0], rank, generator=generator), torch.randn(rank, shape[1], generator=generator)
            result[name] = up * gain / rank**0.5, down * shape[1] ** -0.5
    return result


def lora_file(changes, style="original"):
    """The tensors of a motion LoRA file in one of the styles that exist."""
    down, up = {"original": ("_lora.down", "_lora.up"), "diffusers": ("_lora.down", "_lora.up"), "kohya": (".lora_down", ".lora_up"), "peft": (".lora_A", ".lora_B")}[style]
    tensors = {}
    for name, (up_weight, down_weight) in changes.items():
        key = name.removesuffix(".weight").removesuffix(".0")
        if style == "original":
            key = key.replace(".transformer_blocks", ".temporal_transformer.transformer_blocks")
            key = key.replace(".attn1.", ".attention_blocks.0.processor.").replace(".attn2.", ".attention_blocks.1.processor.")
        elif style == "diffusers":
            key = "unet." + key.replace(".attn1.", ".attn1.processor.").replace(".attn2.", ".attn2.processor.")
        tensors |= {f"{key}{down}.weight": down_weight, f"{key}{up}.weight": up_weight}
    return tensors
