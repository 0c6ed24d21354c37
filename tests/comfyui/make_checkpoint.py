"""Writes an SD1.5 checkpoint with random weights; runs under ComfyUI's interpreter, in its folder: make_checkpoint.py OUT WIDTH WIDTH WIDTH WIDTH.

Names and shapes come from ComfyUI's own classes. ComfyUI recognises SD1.5 by its top width of 320 and text width of 768; with four
widths of 320 the UNet is a tenth of the real one and passes through the same loader.
"""

import sys

sys.path.insert(0, "")
OUT, *WIDTHS = sys.argv[1:]
sys.argv = ["main.py", "--cpu"]

import comfy.options

comfy.options.enable_args_parsing()

import comfy.ldm.models.autoencoder
import comfy.ops
import comfy.sd1_clip
import torch
from comfy.ldm.modules.diffusionmodules import openaimodel
from safetensors.torch import save_file

widths = [int(width) for width in WIDTHS]
unet = openaimodel.UNetModel(
    image_size=32, in_channels=4, out_channels=4, model_channels=widths[0], num_res_blocks=[2] * 4, channel_mult=[w // widths[0] for w in widths],
    transformer_depth=[1, 1, 1, 1, 1, 1, 0, 0], transformer_depth_output=[1] * 9 + [0] * 3, transformer_depth_middle=1, context_dim=768,
    num_heads=8, num_head_channels=-1, use_spatial_transformer=True, use_linear_in_transformer=False, legacy=False, device="meta",
)  # fmt: skip
clip = comfy.sd1_clip.SDClipModel(device="meta", dtype=torch.float16)
shape = {"double_z": True, "z_channels": 4, "resolution": 256, "in_channels": 3, "out_ch": 3, "ch": 128, "ch_mult": [1, 2, 4, 4], "num_res_blocks": 2}
vae = comfy.ldm.models.autoencoder.AutoencoderKL(ddconfig={**shape, "attn_resolutions": [], "dropout": 0.0}, embed_dim=4)

generator = torch.Generator().manual_seed(0)
tensors = {}
for prefix, module in {"model.diffusion_model.": unet, "cond_stage_model.": clip, "first_stage_model.": vae}.items():
    for name, tensor in module.state_dict().items():
        key = prefix + name
        if name in ("logit_scale",) or "text_projection" in name:
            continue
        if tensor.ndim > 1:
            fan_in = tensor[0].numel() if "embedding" not in name else 1000
            tensors[key] = (torch.randn(tensor.shape, generator=generator) * fan_in**-0.5).half()
        else:
            tensors[key] = torch.full(tensor.shape, 1.0 if name.endswith("weight") else 0.0).half()
save_file(tensors, OUT)
