"""Reads a motion adapter from any published file, by its content; refuses everything else with one sentence."""

import logging
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import torch
from torch import Tensor

from . import container, convert
from .config import Layout
from .container import CheckpointError
from .layers import GROUPS
from .model import MotionModel, shapes

logger = logging.getLogger(__name__)

LEVELS = 4
DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


@dataclass(frozen=True)
class Checkpoint:
    """The verified tensors of one motion adapter.

    path: the file. state_dict: our names (see `convert`), every tensor of `layout` and no other, finite, as stored.
    positions: frames of the positional encoding that the file stores, None when it stores none.
    """

    path: Path
    state_dict: Mapping[str, Tensor]
    layout: Layout
    positions: int | None

    def build(self, operations: ModuleType = torch.nn, dtype: torch.dtype | None = None) -> MotionModel:
        """A module on the CPU in dtype (the file's own when None), without a copy of what needs no cast."""
        model = MotionModel(self.layout, operations, device="meta")
        # clone-free: the parameters are the file's mapped pages until something moves or casts them
        model.load_state_dict({name: tensor.to(dtype or tensor.dtype) for name, tensor in self.state_dict.items()}, assign=True)
        return model.requires_grad_(False).eval()


def load(path: str | os.PathLike) -> Checkpoint:
    """Reads and verifies a motion adapter.

    Formats: original AnimateDiff and AnimateLCM, diffusers' MotionAdapter, each with or without its positional
    encoding, alone or among a whole UNet, with `module.`, `unet.` or `model.` before the keys, nested under
    `state_dict`; as .safetensors (mapped) or as a zip that torch.save wrote (mapped, no code is run).

    Raises:
        CheckpointError: the file is missing, broken, hostile or something else; one sentence with the fix.
    """
    path = Path(path)
    tensors = container.open_tensors(path)
    keys = {convert.strip_prefix(key) for key in tensors.shapes}
    for found, sentence in _FOREIGN:
        if found(keys):
            raise CheckpointError(path, sentence)
    layout = _layout(path, tensors.shapes)
    source = _verify(path, tensors.shapes, layout)
    state_dict = {name: _check(path, key, tensors.read(key)) for name, key in source.items()}
    positions = [shape for key, shape in tensors.shapes.items() if convert.is_positions(key)]
    others = len(tensors.shapes) - len(state_dict) - len(positions)
    if others:
        logger.info("%s: %d tensors beside the motion module are not used.", path.name, others)
    return Checkpoint(path, state_dict, layout, _position_count(path, positions))


def _any(pattern: str) -> Callable[[set[str]], bool]:
    search = re.compile(pattern).search
    return lambda keys: any(search(key) for key in keys)


def _is_sdxl(keys: set[str]) -> bool:
    return len({key.split(".")[1] for key in keys if key.startswith("down_blocks.") and ".motion_modules." in key}) == 3


def _is_pia(keys: set[str]) -> bool:
    others = {key for key in keys if not convert.is_motion(key)}
    return "conv_in.weight" in others and others <= {"conv_in.weight", "conv_in.bias"}


# What other files under animatediff_models are, first match first.
_FOREIGN: tuple[tuple[Callable[[set[str]], bool], str], ...] = (
    (_any(r"motion_modules.*(_lora\.|lora_down|lora_up|lora_A|lora_B)"), "is a motion LoRA, not a motion adapter; choose an adapter file here"),
    (_any(r"_lora\.|lora_down|lora_up|lora_A|lora_B"), "is a LoRA, not a motion adapter; move it to models/loras and load it with Load LoRA"),
    (_any(r"^controlnet_cond_embedding\."), "is a SparseCtrl ControlNet, not a motion adapter; load it with a ControlNet node"),
    (_any(r"temporal_attentions\.|pos_encoder\.positional_encoding"), "is a HotShotXL motion module for SDXL; use one for SD1.5, such as AnimateDiff-Lightning"),
    (_is_sdxl, "is an SDXL motion module; use one for SD1.5, such as AnimateDiff-Lightning"),
    (_any(r"^img_encoder\."), "is AnimateLCM-I2V, which animates a picture and is not supported; use AnimateLCM_sd15_t2v.ckpt"),
    (_is_pia, "is PIA, which animates a picture and is not supported; use a text-to-video adapter such as AnimateDiff-Lightning"),
)  # fmt: skip


def _layout(path: Path, shapes_: Mapping[str, torch.Size]) -> Layout:
    """Widths, layers and mid block from names and shapes."""
    ours = _names(path, shapes_)
    if not ours:
        kind = "is a Stable Diffusion checkpoint without" if any("diffusion_model." in key for key in shapes_) else "holds no"
        raise CheckpointError(path, f"{kind} motion module keys, such as down_blocks.0.motion_modules.0; choose a motion adapter")
    levels = {name.split(".")[1] for name in ours if name.startswith("down_blocks.")}
    if levels != {str(level) for level in range(LEVELS)}:
        raise CheckpointError(path, f"has {len(levels)} down blocks with motion modules, an SD1.5 adapter has {LEVELS}; choose another file")
    norms = [ours.get(f"down_blocks.{level}.motion_modules.0.norm.weight") for level in range(LEVELS)]
    widths = tuple(shapes_[key].numel() if key else 0 for key in norms)
    if any(width == 0 or width % GROUPS for width in widths):
        raise CheckpointError(path, f"has widths {widths}, where each must be a multiple of {GROUPS}; the file is broken, download it again")
    layers = len({name.split(".")[3] for name in ours if name.startswith("down_blocks.0.")})
    return Layout(widths, layers, any(name.startswith("mid_block.") for name in ours))


def _names(path: Path, keys: Mapping[str, torch.Size]) -> dict[str, str]:
    try:
        return convert.to_ours(keys)
    except ValueError as error:
        raise CheckpointError(path, f"is ambiguous: {error}; download it again") from error


def _verify(path: Path, found: Mapping[str, torch.Size], layout: Layout) -> dict[str, str]:
    """Our name to the file's key, after every name and shape was compared with the layout's."""
    ours, expected = _names(path, found), shapes(layout)
    problems = [f"{name} is missing" for name in expected if name not in ours]
    problems += [f"{ours[name]} is unknown" for name in ours if name not in expected]
    problems += [
        f"{ours[name]} is {tuple(found[ours[name]])} instead of {tuple(shape)}"
        for name, shape in expected.items()
        if name in ours and found[ours[name]] != shape
    ]
    if problems:
        raise CheckpointError(path, f"differs from a motion adapter in {len(problems)} of {len(expected)} tensors, for instance {problems[0]}; download it again")
    return ours


def _check(path: Path, key: str, tensor: Tensor) -> Tensor:
    if tensor.dtype not in DTYPES:
        raise CheckpointError(path, f"holds {key} as {tensor.dtype}; use a file in float16, bfloat16 or float32")
    # an extreme is NaN when any element is, and one pass over the file is all that is paid for it
    if not all(torch.isfinite(extreme) for extreme in torch.aminmax(tensor)):
        raise CheckpointError(path, f"has NaN or infinite values in {key}; it is broken, download it again")
    return tensor


def _position_count(path: Path, found: list[torch.Size]) -> int | None:
    counts = {shape[-2] if len(shape) in (2, 3) else 0 for shape in found}
    if len(counts) > 1 or 0 in counts:
        raise CheckpointError(path, f"stores positional encodings of {sorted(counts)} frames, where one length is expected; download it again")
    return counts.pop() if counts else None
