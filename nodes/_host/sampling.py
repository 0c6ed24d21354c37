"""Sampling with an adapter's recipe, through ComfyUI's own samplers."""

import comfy.model_management
import comfy.model_patcher
import comfy.sample
import comfy.samplers
import latent_preview
import torch

from ...motion_modules import sampling
from ...motion_modules.config import Adapter
from .recipe import recipe


class TurboGuider(comfy.samplers.CFGGuider):
    """Guidance for the first guidance_steps evaluations; then the prompt alone, at half the cost."""

    def __init__(self, model: comfy.model_patcher.ModelPatcher, guidance: float, guidance_steps: int):
        super().__init__(model)
        self.set_cfg(guidance)
        self.remaining = guidance_steps

    def predict_noise(self, x, timestep, model_options=None, seed=None):
        """ComfyUI's, with guidance 1 once the guided steps are over."""
        if self.remaining == 0:
            self.set_cfg(1.0)
        self.remaining -= 1
        return super().predict_noise(x, timestep, model_options or {}, seed)


def sampler(adapter: Adapter) -> comfy.samplers.KSAMPLER:
    """The adapter's sampler for ComfyUI's sampler sockets."""
    return comfy.samplers.KSAMPLER(sampling.SAMPLERS[adapter.sampler])


def sample(model, positive, negative, latent: dict, seed: int, sigmas: torch.Tensor, guidance: float, guidance_steps: int) -> dict:
    """Samples latent, (f, 4, h / 8, w / 8), at sigmas, (steps + 1,), with preview, progress and interrupt; guidance from 1, guidance_steps 0 is all."""
    adapter = recipe(model).adapter
    guider = TurboGuider(model, guidance, guidance_steps or len(sigmas))
    guider.set_conds(positive, negative)
    samples = comfy.sample.fix_empty_latent_channels(model, latent["samples"], latent.get("downscale_ratio_spacial"))
    noise = comfy.sample.prepare_noise(samples, seed, latent.get("batch_index"))
    callback = latent_preview.prepare_callback(model, len(sigmas) - 1)
    result = guider.sample(noise, samples, sampler(adapter), sigmas, latent.get("noise_mask"), callback, seed=seed)
    kept = {key: value for key, value in latent.items() if not key.startswith("downscale_ratio")}
    return kept | {"samples": result.to(**_between_nodes())}


def _between_nodes() -> dict:
    return {"device": comfy.model_management.intermediate_device(), "dtype": comfy.model_management.intermediate_dtype()}


def empty_latent(width: int, height: int, frames: int) -> dict:
    """Zeros of (frames, 4, height // 8, width // 8)."""
    return {"samples": torch.zeros(frames, 4, height // 8, width // 8, **_between_nodes()), "downscale_ratio_spacial": 8}
