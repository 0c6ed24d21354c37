"""The Stable Diffusion that is animated: the tiny one, a diffusers folder or a single file, through diffusers."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers import AutoencoderKL, DiffusionPipeline, StableDiffusionPipeline, UNet2DConditionModel
from diffusers.loaders.single_file_utils import SingleFileComponentError
from safetensors import SafetensorError
from transformers import CLIPTextModel, PreTrainedTokenizerBase

from ..weights import TINY_BASE

LEVELS = 4
# what diffusers and transformers were seen to raise on files that are broken, of another kind or of other widths
UNREADABLE = (OSError, ValueError, KeyError, TypeError, AttributeError, RuntimeError, SafetensorError, SingleFileComponentError)
LOADING = {"low_cpu_mem_usage": False}  # True needs accelerate, and warns without it


@dataclass(frozen=True)
class Lora:
    """A LoRA for the base: its file and strength."""

    path: Path
    strength: float = 1.0


@dataclass(frozen=True)
class Base:
    """A loaded base model. predicts: "epsilon" (noise) or "v_prediction"."""

    tokenizer: PreTrainedTokenizerBase
    text_encoder: CLIPTextModel
    unet: UNet2DConditionModel
    vae: AutoencoderKL
    predicts: str


def load(
    checkpoint: Path | None = None,
    config: Path | None = None,
    loras: Sequence[Lora] = (),
    device: str = "cpu",
    dtype: torch.dtype = torch.float32,
    download: bool = False,
) -> Base:
    """Loads an SD1.5 model.

    Args:
        checkpoint: a diffusers folder or a single .safetensors or .ckpt file; the tiny model when None.
        config: for a single file, a diffusers folder of SD1.5 that has its tokenizer and configurations.
        loras: merged into the weights, one after the other.
        download: let diffusers fetch what config would give from the model hub.
    Raises:
        ValueError: a file is missing or is not an SD1.5 model; one sentence with the fix.
    """
    path = checkpoint or TINY_BASE
    if not path.exists():
        raise ValueError(f"There is no checkpoint at {path}; give a diffusers folder or a .safetensors file.")
    pipeline = _from_folder(path, download) if path.is_dir() else _from_file(path, config, download)
    config = getattr(getattr(pipeline, "unet", None), "config", {})
    if len(config.get("down_block_types", ())) != LEVELS or config.get("in_channels") != 4 or not isinstance(pipeline, StableDiffusionPipeline):
        raise ValueError(f"{path} is not an SD1.5 text to image model; motion adapters fit no other.")
    for lora in loras:
        _merge(pipeline, lora)
    parts = (pipeline.text_encoder, pipeline.unet, pipeline.vae)
    for part in parts:
        part.requires_grad_(False).eval().to(device, dtype)
    return Base(pipeline.tokenizer, *parts, pipeline.scheduler.config.prediction_type)


def _from_folder(path: Path, download: bool) -> DiffusionPipeline:
    try:
        return DiffusionPipeline.from_pretrained(path, local_files_only=not download, safety_checker=None, requires_safety_checker=False, **LOADING)
    except UNREADABLE as error:
        raise ValueError(f"{path} is no complete diffusers folder ({_first_line(error)}); give another one, or a single file.") from error


def _from_file(path: Path, config: Path | None, download: bool) -> DiffusionPipeline:
    # diffusers takes a folder that is not there for the name of a model to fetch, local_files_only or not
    if config is not None and not config.is_dir():
        raise ValueError(f"There is no folder {config}; --config is a diffusers folder of SD1.5 with tokenizer and configurations.")
    if config is None and not download:
        raise ValueError(
            f"{path} could not be loaded: a single file holds neither tokenizer nor configuration. Give a diffusers folder of SD1.5 that has them with "
            "--config, or allow fetching them with --download."
        )
    source = {} if config is None else {"config": str(config)}
    try:
        return StableDiffusionPipeline.from_single_file(str(path), local_files_only=not download, safety_checker=None, **source)
    except UNREADABLE as error:
        raise ValueError(f"{path} could not be loaded ({_first_line(error)}); give a whole SD1.5 checkpoint with UNet, VAE and text encoder.") from error


def _merge(pipeline: StableDiffusionPipeline, lora: Lora) -> None:
    if not lora.path.is_file():
        raise ValueError(f"There is no LoRA at {lora.path}; give a file, and a number behind a colon for its strength, as in lora.safetensors:0.8.")
    if not math.isfinite(lora.strength):
        raise ValueError(f"{lora.path} has strength {lora.strength}; use a number such as 0.8.")
    try:
        pipeline.load_lora_weights(str(lora.path.parent), weight_name=lora.path.name, local_files_only=True)
    except UNREADABLE as error:
        raise ValueError(f"{lora.path} is no LoRA for SD1.5 ({_first_line(error)}); give another file.") from error
    pipeline.fuse_lora(lora_scale=lora.strength)
    pipeline.unload_lora_weights()


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0].rstrip(".")
