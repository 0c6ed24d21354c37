"""All temporal transformers of one motion adapter, under the names of its checkpoint."""

import torch

from .config import Layout
from .layers import Operations, TemporalTransformer


class MotionBlock(torch.nn.Module):
    """The temporal transformers of one UNet level."""

    def __init__(self, channels: int, layers: int, operations: type[Operations], fused: bool, **factory):
        super().__init__()
        self.motion_modules = torch.nn.ModuleList([TemporalTransformer(channels, operations, fused, **factory) for _ in range(layers)])


class MotionModel(torch.nn.Module):
    """20 temporal transformers, 21 with a mid block, for a UNet of SD1.5's topology.

    It has no forward of its own: a host runs each transformer behind the UNet layer it belongs to, see `names`.

    Args:
        layout: widths, layers and mid block.
        operations: where the layers come from, see `layers.Operations`.
        fused: the form of the layers, see `layers`; `convert.fuse` makes its tensors.
        factory: device and dtype, passed to every layer.
    """

    def __init__(self, layout: Layout, operations: type[Operations] = Operations, fused: bool = False, **factory):
        super().__init__()
        self.layout = layout
        self.down_blocks = torch.nn.ModuleList([MotionBlock(c, layout.layers, operations, fused, **factory) for c in layout.widths])
        self.up_blocks = torch.nn.ModuleList([MotionBlock(c, layout.layers + 1, operations, fused, **factory) for c in reversed(layout.widths)])
        self.mid_block = MotionBlock(layout.widths[-1], 1, operations, fused, **factory) if layout.mid_block else None

    def transformers(self) -> dict[str, TemporalTransformer]:
        """Every temporal transformer by name, as in `down_blocks.0.motion_modules.1`, in the order the UNet runs them."""
        return {name: self.get_submodule(name) for name in names(self.layout)}


def names(layout: Layout) -> list[str]:
    """The names of a layout's temporal transformers, in the order in which the UNet runs them."""
    levels = range(len(layout.widths))
    down = [f"down_blocks.{level}.motion_modules.{i}" for level in levels for i in range(layout.layers)]
    mid = ["mid_block.motion_modules.0"] if layout.mid_block else []
    up = [f"up_blocks.{level}.motion_modules.{i}" for level in levels for i in range(layout.layers + 1)]
    return down + mid + up


def shapes(layout: Layout) -> dict[str, torch.Size]:
    """Name and shape of every tensor of a layout in the plain form; allocates nothing."""
    widths = {
        channels: {key: tensor.shape for key, tensor in TemporalTransformer(channels, device="meta").state_dict().items()}
        for channels in set(layout.widths)
    }
    places = zip(names(layout), layout.channels(), strict=True)
    return {f"{name}.{key}": shape for name, channels in places for key, shape in widths[channels].items()}
