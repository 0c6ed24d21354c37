"""Key names of motion modules: the published layouts to ours and back. Pure `dict -> dict`; no tensor is copied.

Ours are diffusers' names without the positional encoding, which is computed.
"""

import re
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from .layers import positional_encoding

_PREFIX = re.compile(r"^(?:(?:module|model|unet)\.)+")
_MODULE = re.compile(r"(.*?motion_modules\.\d+)\.")
_POSITIONS = re.compile(r"\.(?:pos_encoder\.(?:pe|pos_encoding)|pos_embed\.pe)$")
_PROJECTION = re.compile(r"(.*\.to_)([qkv])\.weight")
# original AnimateDiff, ours; each pattern occurs in one side only, so that one pass decides
_RENAMES = (
    (".temporal_transformer.", "."),
    (".attention_blocks.0.", ".attn1."),
    (".attention_blocks.1.", ".attn2."),
    (".norms.0.", ".norm1."),
    (".norms.1.", ".norm2."),
    (".ff_norm.", ".norm3."),
)


def strip_prefix(key: str) -> str:
    """The key from `down_blocks.`, `mid_block.` or `up_blocks.` on: training scripts wrap the UNet in `module.`, `unet.`, `model.`."""
    return _PREFIX.sub("", key)


def is_motion(key: str) -> bool:
    """Whether a key, prefix stripped, belongs to a motion module (other weights may lie in the same file)."""
    return key.startswith(("down_blocks.", "mid_block.", "up_blocks.")) and ".motion_modules." in key


def our_name(key: str) -> str:
    """The name that we have for a tensor of a motion module in any layout; other keys only lose their prefix."""
    name = strip_prefix(key)
    for original, diffusers in _RENAMES if is_motion(name) else ():
        name = name.replace(original, diffusers, 1)
    return name


def position_keys(keys: Iterable[str]) -> dict[str, str]:
    """The keys of stored positional encodings, in any layout, to the name of the motion module each lies in."""
    names = {key: strip_prefix(key) for key in keys if _POSITIONS.search(key)}
    return {key: module[1] if (module := _MODULE.match(name)) else name for key, name in names.items() if is_motion(name)}


def to_ours(keys: Iterable[str]) -> dict[str, str]:
    """Our name of every motion tensor but the positional encodings, to the key in the file.

    Args:
        keys: the file's keys, of any layout, with or without prefixes; keys of other weights are left out.
    Raises:
        ValueError: two keys of the file are the same tensor of ours.
    """
    ours: dict[str, str] = {}
    for key in keys:
        name = our_name(key)
        if not is_motion(name) or _POSITIONS.search(name):
            continue
        if name in ours:
            raise ValueError(f"the keys '{ours[name]}' and '{key}' are the same tensor")
        ours[name] = key
    return ours


def fuse(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Ours to the fused form's: query, key and value of an attention one below the other in to_qkv."""
    result = {}
    for name, tensor in state_dict.items():
        if match := _PROJECTION.fullmatch(name):
            if match[2] == "q":
                result[f"{match[1]}qkv.weight"] = torch.cat([state_dict[f"{match[1]}{letter}.weight"] for letter in "qkv"])
        else:
            result[name] = tensor
    return result


def fused_place(name: str, channels: int) -> tuple[str, tuple[int, int, int]] | None:
    """Where `fuse` puts a tensor of so many channels: the other's name, and dimension, start and length in it. None when it stays as it is."""
    match = _PROJECTION.fullmatch(name)
    return (f"{match[1]}qkv.weight", (0, "qkv".index(match[2]) * channels, channels)) if match else None


def to_diffusers(state_dict: Mapping[str, Tensor], positions: int | None = 32) -> dict[str, Tensor]:
    """Ours to diffusers' MotionAdapter; positions adds the encoding of so many frames, None leaves it out."""
    return dict(state_dict) | _encodings(state_dict, positions, {".attn1.to_q.weight": ".pos_embed.pe"})


def to_original(state_dict: Mapping[str, Tensor], positions: int | None = 32) -> dict[str, Tensor]:
    """Ours to original AnimateDiff (`mm_sd_v15_v2.ckpt`); positions as in `to_diffusers`, None as AnimateLCM ships it."""
    encodings = {f".attn{i}.to_q.weight": f".attn{i}.pos_encoder.pe" for i in (1, 2)}
    result = {}
    for name, tensor in (dict(state_dict) | _encodings(state_dict, positions, encodings)).items():
        for original, diffusers in _RENAMES[1:]:
            name = name.replace(diffusers, original, 1)
        result[_MODULE.sub(r"\1.temporal_transformer.", name, count=1)] = tensor
    return result


def _encodings(state_dict: Mapping[str, Tensor], positions: int | None, suffixes: Mapping[str, str]) -> dict[str, Tensor]:
    """The stored positional encodings, (1, positions, c) each, beside the tensors whose names end in a key of suffixes."""
    encodings = {}
    for name, tensor in state_dict.items():
        for suffix, replacement in suffixes.items():
            if positions is not None and name.endswith(suffix):
                table = positional_encoding(positions, tensor.shape[0], torch.empty(0, dtype=torch.float32))
                encodings[name.removesuffix(suffix) + replacement] = table[None].to(tensor.dtype)
    return encodings
