"""Writes FILM, core's frame interpolation model, with random weights; runs under ComfyUI's interpreter, in its folder: make_interpolator.py OUT."""

import sys

sys.path.insert(0, "")
(OUT,) = sys.argv[1:]
sys.argv = ["main.py", "--cpu"]

import comfy.options

comfy.options.enable_args_parsing()

import torch
from comfy_extras.frame_interpolation_models.film_net import FILMNet
from safetensors.torch import save_file

generator = torch.Generator().manual_seed(0)
tensors = {}
for name, tensor in FILMNet().state_dict().items():  # as made they are whatever was in memory
    deviation = tensor[0].numel() ** -0.5 if tensor.ndim > 1 else 0.0
    tensors[name] = (torch.randn(tensor.shape, generator=generator) * deviation).half()
save_file(tensors, OUT)
