"""What one evaluation costs in operations and bytes, counted without running it: python benchmarks/counters.py

Deterministic, unlike a clock: 16 frames with their unconditional half, 64x64 latents, float16, the v3 layout at the published widths, eager mode. Weights
and activations are fakes without memory (torch's FakeTensorMode). Needs a ComfyUI (COMFYUI_PATH or ~/comfy/ComfyUI); prints JSON.

A kernel of ours counts as the operations and bytes of its plain form, because fakes are on the CPU, where the plain form runs. Upsampling counts as
ComfyUI's own, which is as many operations as the folded form on a GPU and more bytes.
"""

import importlib
import json
import os
import sys
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import pack
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

FRAMES, CONDS, SIDE, TOKENS, TEXT_WIDTH = 16, 2, 64, 77, 768
LAYOUT = {"aten.clone", "aten.copy_", "aten._to_copy", "aten.contiguous", "aten.copy"}
"""Operations that only move elements (a cast counts as one of them)."""
FREE = {"aten.empty", "aten.empty_strided", "aten.empty_like", "aten.new_empty", "aten.detach", "aten.lift_fresh", "aten._unsafe_view", "aten.empty_permuted"}
"""Operations that launch nothing."""


def _tensors(values: object) -> list[torch.Tensor]:
    if isinstance(values, torch.Tensor):
        return [values]
    return [tensor for value in values for tensor in _tensors(value)] if isinstance(values, (list, tuple)) else []


def _bytes(tensor: torch.Tensor) -> int:
    """Those of its elements; an expanded one is read once."""
    sides = (side for side, stride in zip(tensor.shape, tensor.stride(), strict=True) if stride or side < 2)
    return torch.Size(sides).numel() * tensor.itemsize


def _is_view(operation: torch._ops.OpOverload) -> bool:
    outputs = operation._schema.returns
    return bool(outputs) and all(each.alias_info is not None and not each.alias_info.is_write for each in outputs)


@dataclass
class Counters(TorchDispatchMode):
    """Counts what runs while it is entered; views and allocations are free.

    operations: aten operations by name. layout_copies: those of `LAYOUT`. bytes: read and written by operations, every argument once.
    """

    operations: Counter = field(default_factory=Counter)
    by_bytes: Counter = field(default_factory=Counter)

    def __post_init__(self):
        super().__init__()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        name = str(func).rpartition(".")[0]
        if name.startswith("aten.") and name not in FREE and not _is_view(func):
            self.operations[name] += 1
            given = _tensors(list(args)) + _tensors(list((kwargs or {}).values()))
            self.by_bytes[name] += sum(map(_bytes, given)) + sum(_bytes(each) for each in _tensors(result) if not any(each is one for one in given))
        return result

    @property
    def total(self) -> int:
        """All operations."""
        return self.operations.total()

    @property
    def layout_copies(self) -> int:
        """Operations that only move elements."""
        return sum(count for name, count in self.operations.items() if name in LAYOUT)

    @property
    def bytes(self) -> int:
        """All bytes read and written."""
        return self.by_bytes.total()


def _unet(dtype: torch.dtype) -> torch.nn.Module:
    """ComfyUI's UNet of SD1.5."""
    import comfy.ops
    import comfy.supported_models
    from comfy.ldm.modules.diffusionmodules.openaimodel import UNetModel

    depths = {"transformer_depth": [1, 1, 1, 1, 1, 1, 0, 0], "transformer_depth_output": [1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0], "transformer_depth_middle": 1}
    return UNetModel(
        image_size=32, in_channels=4, out_channels=4, num_res_blocks=[2, 2, 2, 2], channel_mult=[1, 2, 4, 4], num_heads=8,
        use_spatial_transformer=True, legacy=False, num_classes=None, dtype=dtype,
        operations=comfy.ops.disable_weight_init, **comfy.supported_models.SD15.unet_config | depths,
    )  # fmt: skip


def _summary(counters: Counters) -> dict[str, object]:
    return {
        "operations": counters.total, "layout_copies": counters.layout_copies, "gigabytes": round(counters.bytes / 1e9, 2),
        "by_name": dict(counters.operations.most_common()),
    }  # fmt: skip


def evaluation(dtype: torch.dtype = torch.float16) -> dict[str, object]:
    """Counts of the bare UNet, of the UNet with motion, and of each motion module by its name."""
    pack.load()
    layers = importlib.import_module("animatediff_turbo.nodes._host.layers")
    operations = importlib.import_module("animatediff_turbo.nodes._host.operations")
    from animatediff_turbo.motion_modules.config import Layout
    from animatediff_turbo.motion_modules.layers import positional_encoding
    from animatediff_turbo.motion_modules.model import MotionModel, names

    layout = Layout((320, 640, 1280, 1280), 2, False)
    with FakeTensorMode(), torch.no_grad():
        unet = _unet(dtype)
        adapter = MotionModel(layout, operations.Operations, fused=True, dtype=dtype)
        transformers = adapter.transformers()
        places = layers.places_of(unet, layout.mid_block)
        positions = {width: positional_encoding(FRAMES, width, torch.empty(0, dtype=dtype)) for width in set(layout.widths)}
        motion = layers.Motion(FRAMES, 1.0, False, {id(layer): transformers[name] for (layer, _), name in zip(places, names(layout), strict=True)}, positions)
        handlers = [(kind, handler) for kind, handler in layers.HANDLERS if kind.__name__ != "Upsample"]
        n = CONDS * FRAMES
        x, times, text = torch.empty(n, 4, SIDE, SIDE, dtype=dtype), torch.empty(n, dtype=dtype), torch.empty(n, TOKENS, TEXT_WIDTH, dtype=dtype)
        with Counters() as bare:
            unet(x, times, text, transformer_options={})
        with Counters() as whole:
            unet(x, times, text, transformer_options={"patches": {"forward_timestep_embed_patch": handlers}}, time_context=motion)
        modules = {}
        for name, channels in zip(names(layout), layout.channels(), strict=True):
            with Counters() as one:
                transformers[name](torch.empty(n, channels, 8, 8, dtype=dtype), FRAMES, positions=positions[channels])
            modules[name] = _summary(one)
    return {"unet": _summary(bare), "with_motion": _summary(whole), "modules": modules}


def main() -> None:
    """The command line."""
    comfyui = Path(os.environ.get("COMFYUI_PATH", "~/comfy/ComfyUI")).expanduser()
    if not (comfyui / "main.py").is_file():
        raise SystemExit("There is no ComfyUI: set COMFYUI_PATH to a checkout, or put one at ~/comfy/ComfyUI.")
    sys.path.insert(0, str(comfyui))
    importlib.import_module("utils")  # before nodes.py puts ComfyUI's folder "comfy" in front, which has one too
    import comfy.cli_args

    comfy.cli_args.args.cpu = comfy.cli_args.args.use_pytorch_cross_attention = True  # attention as it is on a GPU
    json.dump(evaluation(), sys.stdout, indent=1)


if __name__ == "__main__":
    main()
