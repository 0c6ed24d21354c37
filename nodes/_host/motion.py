"""Apply: a motion adapter on a clone of a MODEL."""

import copy
import logging
import re
import weakref

import comfy.lora
import comfy.model_patcher
import comfy.model_sampling
import comfy.supported_models
import comfyui_version
import torch

from ...motion_modules.checkpoint import Checkpoint
from ...motion_modules.config import Adapter, Layout
from ...motion_modules.convert import fused_place
from ...motion_modules.lora import MotionLora
from . import layers, preflight
from .operations import Operations
from .recipe import KEY, Recipe
from .schedule import TurboEPS, TurboVPrediction
from .strength import Strength

logger = logging.getLogger(__name__)

# before it, forward_timestep_embed_patch is not asked for ResBlock and SpatialTransformer, and no motion would run
MINIMUM_VERSION = (0, 20, 0)
BASE_CHANNELS = (4, 9)


_patchers: weakref.WeakKeyDictionary[Checkpoint, dict] = weakref.WeakKeyDictionary()  # of each file in use, by dtype and devices


class MotionAdapter:
    """A loaded motion adapter as it travels between nodes. All of one file share a patcher for each dtype and device.

    loras: motion LoRAs with their strengths, which the patchers' clones carry as weight patches.
    """

    def __init__(self, checkpoint: Checkpoint, adapter: Adapter):
        self.checkpoint = checkpoint
        self.recipe = Recipe(adapter, checkpoint.path.name, checkpoint.positions or adapter.max_frames)
        self.loras: tuple[tuple[MotionLora, float], ...] = ()

    def with_lora(self, lora: MotionLora, strength: float) -> "MotionAdapter":
        """This adapter with one more motion LoRA, on the same module in memory; itself at strength 0. Raises CheckpointError when it does not fit."""
        lora.fitting(self.checkpoint.layout)
        if strength == 0:
            return self
        result = copy.copy(self)
        result.loras = (*self.loras, (lora, strength))
        return result

    def patcher(self, model: comfy.model_patcher.ModelPatcher) -> comfy.model_patcher.ModelPatcher:
        """The motion module with its LoRAs under ComfyUI's memory management, in the dtype in which model computes (never its fp8 weight dtype)."""
        dtype = model.get_model_object("manual_cast_dtype") or model.model.get_dtype()
        key = dtype, model.load_device, model.offload_device
        patchers = _patchers.setdefault(self.checkpoint, {})
        if key not in patchers:
            patchers[key] = _build(self.checkpoint, *key)
        clone = patchers[key].clone()
        clone.cached_patcher_init = _build, (self.checkpoint, *key)  # on the clone: what lives in _patchers must not hold its key
        for lora, strength in self.loras:
            clone.add_patches(_patches(lora, self.checkpoint.layout), strength)
        return clone


def _build(checkpoint: Checkpoint, dtype: torch.dtype, load_device: torch.device, offload_device: torch.device) -> comfy.model_patcher.ModelPatcher:
    """A motion module of its own; ComfyUI asks for another one for each further GPU (MultiGPU CFG Split, Select Model Device)."""
    # not CoreModelPatcher, whose weights ComfyUI may page in one by one: on an H200 that took longer than the motion modules themselves. On cards with less
    # memory than UNet and motion module need together, ComfyUI keeps a part of this one off the card instead; what that costs has not been measured
    patcher = comfy.model_patcher.ModelPatcher(checkpoint.build(Operations, dtype), load_device, offload_device)
    logger.info("%s: motion module built in %s, %.0f MiB.", checkpoint.path.name, str(dtype).removeprefix("torch."), patcher.model_size() / 2**20)
    return patcher


def _patches(lora: MotionLora, layout: Layout) -> dict[str, object]:
    """lora's changes as ComfyUI's weight patches, whose class differs between its versions."""
    tensors, weights = {}, {}
    for name, change in lora.fitting(layout).items():
        layer = name.removesuffix(".weight")
        weights[layer] = fused_place(name, len(change.up)) or name
        alpha = torch.tensor(change.scale * len(change.down))
        tensors |= {f"{layer}.lora_up.weight": change.up, f"{layer}.lora_down.weight": change.down, f"{layer}.alpha": alpha}
    return comfy.lora.load_lora(tensors, weights)


def apply_motion(model: comfy.model_patcher.ModelPatcher, adapter: MotionAdapter, strength: Strength, pooled_norm: bool = False):
    """A clone of model that runs the adapter's temporal transformers behind the UNet's layers; model stays as it was.

    pooled_norm: see `TemporalTransformer`.
    Raises ValueError when ComfyUI is too old, the base is not SD1.5, or the model already has motion.
    """
    _check_version()
    _check_untouched(model)
    _check_fits(model, adapter.checkpoint)
    patcher = adapter.patcher(model)
    clone = model.clone()
    clone.set_additional_models(KEY, [patcher])
    layers.install(clone, layers.Call(adapter.recipe, patcher.model, getattr(patcher, "clone_base_uuid", None), strength, pooled_norm))
    velocity = isinstance(model.get_model_object("model_sampling"), comfy.model_sampling.V_PREDICTION)
    clone.add_object_patch("model_sampling", (TurboVPrediction if velocity else TurboEPS)(adapter.recipe.adapter))
    clone.set_attachments(KEY, adapter.recipe)
    preflight.install(clone, adapter.recipe)
    return clone


def _check_version() -> None:
    version = comfyui_version.__version__
    if tuple(map(int, re.findall(r"\d+", version)[:3])) < MINIMUM_VERSION:
        raise ValueError(f"AnimateDiff Turbo needs ComfyUI {'.'.join(map(str, MINIMUM_VERSION))} or newer and this is {version}; update ComfyUI.")


def _check_untouched(model: comfy.model_patcher.ModelPatcher) -> None:
    if model.get_attachment(KEY) is not None:
        raise ValueError(f"This model already has the motion adapter {model.get_attachment(KEY).file}; use one Apply Motion Adapter for each model.")
    others = preflight.foreign_handlers(model.model_options)
    if others:  # ComfyUI runs the first handler of a class and skips the rest, so that no motion would be seen
        raise ValueError(f"{others[0]} has taken over this model's layers before; connect Apply Motion Adapter in front of its node.")


def _check_fits(model: comfy.model_patcher.ModelPatcher, checkpoint: Checkpoint) -> None:
    """Raises ValueError unless the checkpoint has a transformer of the right width for every place in the model."""
    file, layout, config = checkpoint.path.name, checkpoint.layout, model.model.model_config
    channels = config.unet_config.get("in_channels", 4)
    if not isinstance(config, comfy.supported_models.SD15) or channels not in BASE_CHANNELS:
        raise ValueError(f"{file} is made for SD1.5, but the connected model is {type(config).__name__} with {channels} channels; load an SD1.5 checkpoint.")
    found = [width for _, width in layers.places_of(model.model.diffusion_model, layout.mid_block)]
    if found != layout.channels():
        raise ValueError(
            f"{file} is made for a UNet of widths {sorted(set(layout.widths))} in {len(layout.channels())} blocks, but the connected model has "
            f"{sorted(set(found))} in {len(found)}; use an adapter made for this model."
        )
