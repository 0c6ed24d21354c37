"""What Apply Motion Adapter says before the first step, in whichever sampler node the run is."""

import logging
from dataclasses import dataclass
from pathlib import PurePath

import comfy.model_patcher
import comfy.patcher_extension
import comfy.samplers
import torch
from comfy.context_windows import ContextSchedules, IndexListContextHandler
from comfy.ldm.modules.attention import SpatialTransformer
from comfy.ldm.modules.diffusionmodules.openaimodel import ResBlock

from ...motion_modules import preflight
from ...motion_modules.preflight import Run
from .files import show
from .recipe import KEY, Recipe
from .schedule import TurboModelSampling
from .windows import hint_frames, slice_hints

logger = logging.getLogger(__name__)

def install(model: comfy.model_patcher.ModelPatcher, recipe: Recipe) -> None:
    """Every run of model and of its clones is looked at before it starts; stops what cannot work, says what will look worse than it could."""
    model.add_wrapper_with_key(comfy.patcher_extension.WrappersMP.OUTER_SAMPLE, KEY, _Preflight(recipe))


@dataclass(frozen=True)
class _Preflight:
    """A wrapper of CFGGuider.outer_sample, which every sampler node calls."""

    recipe: Recipe

    def __call__(self, executor, noise, latent_image, sampler, sigmas, *args, **kwargs):
        guider = executor.class_obj
        _check(guider, noise)
        run, at_once = _run(guider, noise, latent_image, sampler, sigmas)
        preflight.check_frames(self.recipe.file, self.recipe.max_frames, at_once)
        sentences = preflight.warnings(self.recipe.adapter, self.recipe.file, run)
        for sentence in sentences:
            logger.warning("%s", sentence)
        # with nothing to warn of as well: the text of the run before would stay under the node
        show("\n".join([preflight.summary(self.recipe.adapter, run), *sentences]))
        slice_hints(guider, run.frames)
        return executor(noise, latent_image, sampler, sigmas, *args, **kwargs)


def _check(guider: comfy.samplers.CFGGuider, noise: torch.Tensor) -> None:
    """Raises ValueError for what the UNet would fail on, or windows that leave frames out."""
    model, handler = guider.model_patcher, guider.model_options.get("context_handler")
    preflight.check_latent(tuple(noise.shape), model.get_model_object("latent_format").latent_channels)
    for text in _texts(guider):
        preflight.check_width(text.shape[-1], model.model.model_config.unet_config["context_dim"])
    if isinstance(handler, IndexListContextHandler):
        overlaps = handler.freenoise or handler.context_schedule.name != ContextSchedules.BATCHED
        preflight.check_windows(handler.context_length, handler.context_overlap * overlaps, handler.dim, len(noise))


def _texts(guider: comfy.samplers.CFGGuider) -> list[torch.Tensor]:
    return [cond["cross_attn"] for conds in guider.conds.values() for cond in conds if cond.get("cross_attn") is not None]


def _run(guider: comfy.samplers.CFGGuider, noise: torch.Tensor, latent: torch.Tensor, sampler, sigmas: torch.Tensor) -> tuple[Run, int]:
    """The run, and the most frames that the UNet will be given at once."""
    model, options = guider.model_patcher, guider.model_options
    frames = window = at_once = len(noise)
    handler = options.get("context_handler")
    if handler is not None and handler.context_length < frames:
        window = handler.context_length
        at_once = window + getattr(handler, "causal_window_fix", False)
    schedule = model.get_model_object("model_sampling")
    run = Run(
        frames=frames,
        window=window,
        sigmas=sigmas,
        guidance=getattr(guider, "cfg", 1.0),
        sampler=getattr(getattr(sampler, "sampler_function", None), "__name__", "").removeprefix("sample_"),
        lora=bool(model.hook_patches) or any(str(key).startswith("diffusion_model.") for key in model.patches),
        foreign_schedule="" if isinstance(schedule, TurboModelSampling) else type(schedule).__name__,
        foreign=(*foreign_handlers(options), *foreign_injections(model)),
        prompt_frames=max(map(len, _texts(guider)), default=1),
        hint_frames=frozenset(hint_frames(guider)),
        empty=not latent.any(),
    )
    return run, at_once


def foreign_handlers(options: dict) -> list[str]:
    """Whose handlers for the layers that carry motion a MODEL's options have, other packs' modules."""
    patches = options["transformer_options"].get("patches", {}).get("forward_timestep_embed_patch", [])
    taken = [handler for layer, handler in patches if issubclass(ResBlock, layer) or issubclass(SpatialTransformer, layer)]
    names = {handler.__module__ for handler in taken} - {f"{__package__}.layers"}
    return sorted(PurePath(name).name for name in names)  # ComfyUI names a pack's modules by their path


def foreign_injections(model: comfy.model_patcher.ModelPatcher) -> list[str]:
    """Under which names other packs put modules into the UNet while it runs."""
    return sorted(map(str, model.injections))
