"""Reads a motion adapter from any published file, by its content; refuses everything else with one sentence."""

import logging
import math
import os
import re
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from . import container, convert
from .config import Layout
from .container import CheckpointError, Tensors
from .layers import GROUPS, Operations, positional_encoding
from .model import MotionModel, names, shapes

logger = logging.getLogger(__name__)

LEVELS = 4
DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
# Published adapters have widths to 1280, 2 layers and 128 positions. Beyond these a file can only be broken, and describing it costs time.
MAX_WIDTH, MAX_LAYERS, MAX_POSITIONS = 8192, 8, 1024


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """The verified tensors of one motion adapter; equal to itself only.

    path: the file. state_dict: our names (see `convert`), every tensor of `layout` and no other, finite, as stored.
    positions: frames of the positional encoding that the file stores, None when it stores none.
    """

    path: Path
    state_dict: Mapping[str, Tensor]
    layout: Layout
    positions: int | None

    def build(self, operations: type[Operations] = Operations, dtype: torch.dtype | None = None) -> MotionModel:
        """A module of the fused form on the CPU in dtype (the file's own when None), without a copy of what needs neither a cast nor a place beside others."""
        model = MotionModel(self.layout, operations, fused=True, device="meta")
        # the parameters are the file's mapped pages until something moves or casts them
        tensors = {name: tensor.to(dtype or tensor.dtype) for name, tensor in self.state_dict.items()}
        model.load_state_dict(convert.fuse(tensors), assign=True)
        return model.requires_grad_(False).eval()


def load(path: str | os.PathLike, copy: bool = False, known: bool = False) -> Checkpoint:
    """Reads and verifies a motion adapter.

    Formats: original AnimateDiff and AnimateLCM, diffusers' MotionAdapter, each with or without its positional
    encoding, alone or among a whole UNet, with `module.`, `unet.` or `model.` before the keys, nested under
    `state_dict`; as .safetensors or as a zip that torch.save wrote, both mapped, and no code of theirs is run.

    Args:
        path: the file.
        copy: take the tensors into memory, for drives from which mapped files are slow and files that may be replaced meanwhile.
        known: these very bytes have been loaded before; names and shapes are verified, the numbers are not read again.
    Raises:
        CheckpointError: the file is missing, broken, hostile or something else; one sentence with the fix.
    """
    path = Path(path)
    tensors = container.open_tensors(path)
    _refuse_foreign(path, {convert.strip_prefix(key) for key in tensors.shapes})
    try:
        keys = convert.to_ours(tensors.shapes)
    except ValueError as error:
        raise CheckpointError(path, f"is ambiguous, {error}; choose another file") from error
    layout = _verify(path, {name: tensors.shapes[key] for name, key in keys.items()})
    state_dict = {name: tensors.read(key) if known else finite(path, key, tensors.read(key)) for name, key in keys.items()}
    if copy:
        state_dict = {name: tensor.clone() for name, tensor in state_dict.items()}
    encodings = convert.position_keys(tensors.shapes)
    positions = _positions(path, tensors, encodings, layout, known)
    logger.info("%s: %d of its %d tensors are a motion module.", path.name, len(state_dict) + len(encodings), len(tensors.shapes))
    return Checkpoint(path, state_dict, layout, positions)


def _any(pattern: str) -> Callable[[set[str]], bool]:
    search = re.compile(pattern).search
    return lambda keys: any(search(key) for key in keys)


def _is_sdxl(keys: set[str]) -> bool:
    return len({key.split(".")[1] for key in keys if key.startswith("down_blocks.") and convert.is_motion(key)}) == 3


def _is_pia(keys: set[str]) -> bool:
    others = {key for key in keys if not convert.is_motion(key)}
    return "conv_in.weight" in others and others <= {"conv_in.weight", "conv_in.bias"}


def _is_no_motion(keys: set[str]) -> bool:
    return not any(map(convert.is_motion, keys))


def _is_stable_diffusion(keys: set[str]) -> bool:
    return _is_no_motion(keys) and any("diffusion_model." in key for key in keys)


_LORA = r"(_lora\.|\.lora_|^lora_)"
_INSTEAD = "such as animatediff_lightning_4step_comfyui.safetensors"
# What other files are that lie among motion adapters, first match first.
_FOREIGN: tuple[tuple[Callable[[set[str]], bool], str], ...] = (
    (_any(rf"\.motion_modules\..*{_LORA}"), "is a motion LoRA, not a motion adapter; move it to models/animatediff_motion_lora and load it with Load Motion LoRA"),
    (_any(_LORA), "is a LoRA, not a motion adapter; move it to models/loras and load it with Load LoRA"),
    (_any(r"^controlnet_cond_embedding\."), "is a SparseCtrl ControlNet, not a motion adapter; load it with a ControlNet node"),
    (_any(r"temporal_attentions\.|pos_encoder\.positional_encoding"), f"is HotShotXL, a motion module for SDXL; use one for SD1.5, {_INSTEAD}"),
    (_is_sdxl, f"is a motion module for SDXL; use one for SD1.5, {_INSTEAD}"),
    (_any(r"^img_encoder\."), "is AnimateLCM-I2V, which animates a picture and is not supported; use AnimateLCM_sd15_t2v.ckpt"),
    (_is_pia, f"is PIA, which animates a picture and is not supported; use a text to video adapter, {_INSTEAD}"),
    (_is_stable_diffusion, f"is a Stable Diffusion model, not a motion adapter; load it with Load Checkpoint and choose a motion adapter here, {_INSTEAD}"),
    (_is_no_motion, f"is not a motion adapter, none of its tensors belongs to one; choose a motion adapter, {_INSTEAD}"),
)  # fmt: skip


def _refuse_foreign(path: Path, keys: set[str]) -> None:
    for found, sentence in _FOREIGN:
        if found(keys):
            raise CheckpointError(path, sentence)


def _verify(path: Path, found: Mapping[str, torch.Size]) -> Layout:
    """The layout that names and shapes tell, after every one of them was compared with it."""
    levels = {name.split(".")[1] for name in found if name.startswith("down_blocks.")}
    if levels != {str(level) for level in range(LEVELS)}:
        blocks = ", ".join(sorted(levels)) or "none"
        raise CheckpointError(path, f"has motion modules in down blocks {blocks}, where an SD1.5 adapter has 0 to {LEVELS - 1}; choose another file")
    norms = [f"down_blocks.{level}.motion_modules.0.norm.weight" for level in range(LEVELS)]
    if missing := [name for name in norms if name not in found]:
        raise CheckpointError(path, f"lacks {missing[0]}; download it again")
    widths = tuple(found[name].numel() for name in norms)
    layers = len({name.split(".")[3] for name in found if name.startswith("down_blocks.0.")})
    if layers > MAX_LAYERS or any(width % GROUPS or not 0 < width <= MAX_WIDTH for width in widths):
        raise CheckpointError(path, f"has {layers} layers of widths {widths}, which no motion adapter has; download it again")
    layout = Layout(widths, layers, any(name.startswith("mid_block.") for name in found))
    expected = shapes(layout)
    problems = [f"{name} is missing" for name in expected if name not in found]
    problems += [f"{name} is unknown" for name in found if name not in expected]
    problems += [f"{name} is {tuple(found[name])} instead of {tuple(shape)}" for name, shape in expected.items() if name in found and found[name] != shape]
    if problems:
        count = f"{len(problems)} of its {len(expected)} tensors" if len(problems) > 1 else "one tensor"
        raise CheckpointError(path, f"differs from a motion adapter in {count}, for instance {problems[0]}; download it again or choose another file")
    return layout


def finite(path: Path, key: str, tensor: Tensor) -> Tensor:
    """tensor as it is; raises CheckpointError, naming path and key, for NaN, infinity and numbers that no adapter is stored in."""
    if tensor.dtype not in DTYPES:
        raise CheckpointError(path, f"holds {key} as {tensor.dtype}; use a file in float16, bfloat16 or float32")
    # one pass over the file is all that is paid for it: a sum is not finite when any element is not, or when it overflows, which the extremes tell apart
    if not math.isfinite(tensor.sum()) and not all(map(math.isfinite, torch.aminmax(tensor))):
        raise CheckpointError(path, f"has NaN or infinite values in {key}; it is broken, download it again")
    return tensor


def _positions(path: Path, tensors: Tensors, stored: Mapping[str, str], layout: Layout, known: bool) -> int | None:
    """Frames of the stored positional encodings, each of which must be the one that is computed instead of it (unless known to be)."""
    if not stored:
        return None
    widths = dict(zip(names(layout), layout.channels(), strict=True))
    counts = Counter(stored.values())
    if counts.keys() != widths.keys() or len(set(counts.values())) > 1:
        raise CheckpointError(path, "has a positional encoding in some motion modules and lacks it in others; download it again")
    lengths = {shape[1] if len(shape) == 3 and shape[0] == 1 else 0 for shape in map(tensors.shapes.__getitem__, stored)}
    frames = lengths.pop()
    if lengths or not 0 < frames <= MAX_POSITIONS:
        raise CheckpointError(path, "has positional encodings of differing or no length; download it again")
    if known:
        return frames
    expected = {width: positional_encoding(frames, width, torch.empty(0)) for width in set(layout.widths)}
    for key, module in stored.items():
        table, width = tensors.read(key).double(), widths[module]
        # half precision is off by 0.002 at most; NaN is not below anything
        if table.shape[2:] != (width,) or not (table[0] - expected[width]).abs().max() < 0.01:
            raise CheckpointError(path, f"has a positional encoding of its own in {key}, which is not supported; choose another file")
    return frames
