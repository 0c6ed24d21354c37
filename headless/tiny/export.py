"""The trained stack as files: a diffusers folder, and the motion module under AnimateDiff's own names; float16."""

import hashlib
import json
from pathlib import Path

import torch
from diffusers import AutoencoderKL, DDIMScheduler
from safetensors.torch import save_file
from torch import Tensor, nn

from ...motion_modules import convert, schedule
from ...motion_modules.model import MotionModel
from .stages import Stack


def _half(module: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.to("cpu", torch.float16).contiguous() for name, tensor in module.state_dict().items()}


def save_base(folder: Path, stack: Stack, vae: AutoencoderKL, beta_schedule: str) -> None:
    """Writes what `StableDiffusionPipeline.from_pretrained(folder)` reads."""
    stack.tokenizer.save_pretrained(folder / "tokenizer")
    _name_class(folder / "tokenizer" / "tokenizer_config.json")
    for name, module, file in (("unet", stack.unet, "diffusion_pytorch_model"), ("vae", vae, "diffusion_pytorch_model"), ("text_encoder", stack.text_encoder, "model")):
        module.save_config(folder / name) if hasattr(module, "save_config") else module.config.save_pretrained(folder / name)
        save_file(_published(name, _half(module)), folder / name / f"{file}.safetensors", {"format": "pt"})
    scheduler = DDIMScheduler(
        beta_start=schedule.BETA_START, beta_end=schedule.BETA_END, beta_schedule=beta_schedule, clip_sample=False, set_alpha_to_one=False, steps_offset=1
    )
    scheduler.save_config(folder / "scheduler")
    index = {
        "_class_name": "StableDiffusionPipeline", "feature_extractor": [None, None], "safety_checker": [None, None], "requires_safety_checker": False,
        "scheduler": ["diffusers", "DDIMScheduler"], "text_encoder": ["transformers", "CLIPTextModel"],
        "tokenizer": ["transformers", "PreTrainedTokenizerFast"], "unet": ["diffusers", "UNet2DConditionModel"], "vae": ["diffusers", "AutoencoderKL"],
    }  # fmt: skip
    (folder / "model_index.json").write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")


def _name_class(path: Path) -> None:
    # transformers 5 writes a name that version 4 doesn't know; both know this one
    config = json.loads(path.read_text(encoding="utf-8")) | {"tokenizer_class": "PreTrainedTokenizerFast"}
    path.write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def _published(name: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    # transformers 5 dropped the prefix that every published text encoder has and that ComfyUI reads
    if name == "text_encoder":
        return {key if key.startswith("text_model.") else f"text_model.{key}": tensor for key, tensor in tensors.items()}
    return tensors


def save_motion(path: Path, motion: MotionModel) -> None:
    """Writes a motion module as AnimateDiff v2 files are."""
    save_file(convert.to_original(_half(motion)), path, {"format": "pt"})


def sha256(path: Path) -> str:
    """Of a file, in hex."""
    return hashlib.sha256(path.read_bytes()).hexdigest()
