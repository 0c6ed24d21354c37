"""Our motion module on diffusers' UNet, by forward hooks at the places where it stands in ComfyUI."""

import contextlib
from collections.abc import Iterator

import torch
from diffusers import UNet2DConditionModel
from torch import Tensor, nn

from ..motion_modules.layers import TemporalTransformer, positional_encoding
from ..motion_modules.model import MotionModel


def places(unet: UNet2DConditionModel, mid_block: bool) -> list[nn.Module]:
    """The layers behind which a temporal transformer stands, in the order they run: the attention, or the ResNet where there is none."""
    blocks = [*unet.down_blocks, *([unet.mid_block] if mid_block else []), *unet.up_blocks]
    return [layer for block in blocks for layer in (getattr(block, "attentions", None) or block.resnets)]


@contextlib.contextmanager
def attached(unet: UNet2DConditionModel, motion: MotionModel, frames: int, strength: float = 1.0, pooled_norm: bool = False) -> Iterator[None]:
    """While it is open, unet's batch is ((b f) c h w) and every layer of `places` is followed by its temporal transformer.

    Arguments: see `TemporalTransformer.branch`. Raises ValueError when motion was made for another UNet.
    """
    transformers = list(motion.transformers().values())
    layers = places(unet, motion.layout.mid_block)
    if len(layers) != len(transformers):
        raise ValueError(f"The motion module has {len(transformers)} places but this UNet has {len(layers)}; use an SD1.5 model.")

    positions: dict[tuple[int, torch.dtype, torch.device], Tensor] = {}

    def follow(transformer: TemporalTransformer):
        def hook(layer: nn.Module, arguments: tuple, output: Tensor | tuple[Tensor]) -> Tensor | tuple[Tensor]:
            x = output[0] if isinstance(output, tuple) else output
            key = x.shape[1], x.dtype, x.device
            if key not in positions:
                positions[key] = positional_encoding(frames, x.shape[1], x)
            x = transformer(x, frames, strength, pooled_norm, positions[key])
            return (x,) if isinstance(output, tuple) else x

        return hook

    handles = [layer.register_forward_hook(follow(transformer)) for layer, transformer in zip(layers, transformers, strict=True)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
