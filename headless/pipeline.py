"""Prompt, or prompt and frames, to frames without ComfyUI: diffusers' base, our motion module, schedule and samplers; the same numbers as the nodes."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from .. import schema
from ..motion_modules import sampling, schedule
from ..motion_modules.config import Adapter
from ..motion_modules.model import MotionModel
from . import prompts
from .base import Base
from .diffusion import clean, predict
from .motion import attached

AT_ONCE = 4
"""Frames through the VAE; its memory grows with them, its result does not change."""


@dataclass(frozen=True)
class Request:
    """One clip, in fal's terms. None takes the adapter's own.

    width, height: pixels, multiples of 8. num_inference_steps: UNet calls. guidance_scale: 1 and less ignore the negative prompt and cost half.
    strength: how much of given frames is replaced, above 0 up to 1; a lower one may run fewer steps. 1 without frames.
    """

    prompt: str
    negative_prompt: str = schema.NEGATIVE_PROMPT
    width: int = int(schema.SIDE.default)
    height: int = int(schema.SIDE.default)
    num_frames: int = int(schema.NUM_FRAMES.default)
    num_inference_steps: int = 0
    guidance_scale: float | None = None
    seed: int = 0
    strength: float = 1.0


def _check(request: Request, adapter: Adapter, max_frames: int) -> None:
    for name in ("prompt", "negative_prompt"):
        try:
            getattr(request, name).encode()
        except UnicodeEncodeError as error:
            raise ValueError(f"{name} has half a letter at place {error.start + 1} (a lone surrogate); write it anew.") from error
    for name in ("width", "height"):
        side = getattr(request, name)
        if side % 8 or side < schema.SIDE.minimum or side > schema.SIDE.maximum:
            raise ValueError(f"{name} is {side}; use a multiple of 8 from {schema.SIDE.minimum} to {schema.SIDE.maximum}.")
    if not 1 <= request.num_frames <= max_frames:
        raise ValueError(f"num_frames is {request.num_frames}; {adapter.name} knows 1 to {max_frames} frames.")
    if not 0 <= request.seed < 2**64:
        raise ValueError(f"seed is {request.seed}; use a whole number from 0 to {2**64 - 1}.")
    if not 0 < request.strength <= 1:
        raise ValueError(f"strength is {request.strength}; use a value above 0 and up to 1.")
    highest = schema.GUIDANCE_SCALE.maximum
    if request.guidance_scale is not None and not schema.GUIDANCE_SCALE.minimum <= request.guidance_scale <= highest:
        raise ValueError(f"guidance_scale is {request.guidance_scale}; use {schema.GUIDANCE_SCALE.minimum:g} to {highest:g}.")
    schedule.timesteps(adapter, request.num_inference_steps)


def _check_source(request: Request, given: tuple[int, ...] | None) -> None:
    if given is None and request.strength != 1:
        raise ValueError(f"strength is {request.strength}, but there is no video to keep anything of; give one, or leave strength at 1.")
    asked = (request.num_frames, request.height, request.width, 3)
    if given is not None and given != asked:
        raise ValueError(f"The video has frames of {given} (number, height, width, colours) and the clip of {asked}; make them equal.")


@dataclass(frozen=True)
class TextToVideo:
    """A loaded stack: everything that a clip needs but its request.

    motion: on the base's device, in the dtype in which it should compute. adapter: how it was trained to be sampled. max_frames: its longest clip.
    strength: how much of the motion is added, see `TemporalTransformer`.
    """

    base: Base
    motion: MotionModel
    adapter: Adapter
    max_frames: int
    strength: float = 1.0

    def check(self, request: Request, source_shape: tuple[int, ...] | None = None) -> None:
        """Raises ValueError when a call with this request, and frames of this shape, would: something is out of range, or asks for what is not here."""
        _check(request, self.adapter, self.max_frames)
        _check_source(request, source_shape)
        for text in (request.prompt, request.negative_prompt):
            prompts.tokenize(self.base.tokenizer, text)

    def __call__(self, request: Request, progress: Callable[[int, int], None] | None = None, source: Tensor | None = None) -> Tensor:
        """The frames, (f, height, width, 3) float32 on the CPU, 0 to 1; arguments and errors as those of `parts`."""
        return torch.cat([part.cpu() for part in self.parts(request, progress, source)])

    @torch.no_grad()
    def parts(self, request: Request, progress: Callable[[int, int], None] | None = None, source: Tensor | None = None) -> Iterator[Tensor]:
        """The frames a few at a time, (n, height, width, 3) float32 on the device, 0 to 1: each part is decoded when it is asked for.

        Args:
            progress: called with the steps done and their number after each.
            source: frames to start from, of the request's size and number, as the result is; the request's strength says how much of them stays.
        Raises:
            ValueError: the request is out of range or source has another shape; nothing was computed.
        """
        self.check(request, None if source is None else tuple(source.shape))
        sigmas = schedule.sigmas(self.adapter, request.num_inference_steps, request.strength)
        guidance = self.adapter.guidance if request.guidance_scale is None else max(1.0, request.guidance_scale)
        # drawn on the CPU, all frames at once, as ComfyUI does: the same seed starts from the same noise on every device
        shape = (request.num_frames, 4, request.height // 8, request.width // 8)
        noise = torch.randn(shape, generator=torch.Generator().manual_seed(request.seed)).to(self.base.unet.device)
        table = schedule.sigma_table(self.adapter.beta_schedule)
        start = sigmas[0].square().add(1).sqrt() if sigmas[0] == table[-1] else sigmas[0]
        denoiser = self._denoiser(request, guidance, table.log().to(noise.device))
        callback = None if progress is None else lambda state: progress(state["i"] + 1, len(sigmas) - 1)
        sample = sampling.SAMPLERS[self.adapter.sampler]
        x = noise * start if source is None else self._encode(source) + noise * start
        with attached(self.base.unet, self.motion, request.num_frames, self.strength):
            latents = sample(denoiser, x, sigmas.to(noise.device), {"seed": request.seed}, callback)
        yield from self._decode(latents)

    def _denoiser(self, request: Request, guidance: float, log_sigmas: Tensor) -> sampling.Denoiser:
        """The samplers' model: (x, sigmas) to the clean latents, with guidance."""
        base = self.base
        encoded = [prompts.encode(base.tokenizer, base.text_encoder, text) for text in (request.prompt, request.negative_prompt)]
        conds = [text.expand(request.num_frames, -1, -1) for text in encoded[: 1 + (guidance != 1)]]

        def denoise(x: Tensor, sigma: Tensor, seed: int) -> Tensor:
            timestep = (sigma[0].log() - log_sigmas).abs().argmin().expand(len(x))
            results = [clean(base.predicts, x, sigma, predict(base.unet, x, sigma, timestep, cond)) for cond in conds]
            return results[0] if guidance == 1 else results[1] + guidance * (results[0] - results[1])

        return denoise

    def _encode(self, frames: Tensor) -> Tensor:
        vae = self.base.vae
        parts = (part.permute(0, 3, 1, 2).to(vae.device, vae.dtype) * 2 - 1 for part in frames.split(AT_ONCE))
        latents = torch.cat([vae.encode(part, return_dict=False)[0].mode() for part in parts])
        return latents.to(self.base.unet.device, torch.float32) * vae.config.scaling_factor

    def _decode(self, latents: Tensor) -> Iterator[Tensor]:
        latents = (latents / self.base.vae.config.scaling_factor).to(self.base.vae.dtype)
        for part in latents.split(AT_ONCE):
            pixels = self.base.vae.decode(part, return_dict=False)[0].float()
            yield (pixels / 2 + 0.5).clamp(0, 1).permute(0, 2, 3, 1).contiguous()
