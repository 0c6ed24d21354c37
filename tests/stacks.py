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
