"""Where the temporal transformers run: behind layers of ComfyUI's UNet, through its handlers for them.

What a call adds travels as UNetModel.forward's argument time_context, which SD1.5 has no other use for and which reaches every handler:
ComfyUI's TorchCompileModel drops the guards on transformer_options, so that whatever a compiled UNet reads there may be of an earlier run.
"""

import functools
from dataclasses import dataclass, field
from uuid import UUID

import comfy.model_patcher
import comfy.patcher_extension
import torch
from comfy.ldm.modules.attention import SpatialTransformer
from comfy.ldm.modules.diffusionmodules.openaimodel import ResBlock, Upsample

from ...motion_modules.layers import TemporalTransformer, positional_encoding
from ...motion_modules.model import MotionModel
from ...motion_modules.preflight import check_frames
from . import spatial
from .recipe import KEY, Recipe
from .strength import Strength, frames_in_call


@dataclass(frozen=True)
class Motion:
    """What is added to one call of the UNet.

    transformers: by id of the layer behind which they run; a compiled UNet is compiled again for another layer, as it is not for another name of a block.
    strength, pooled_norm: see `TemporalTransformer.forward`.
    positions: `positional_encoding` of the frames by channels.
    """

    frames: int
    strength: float | torch.Tensor
    pooled_norm: bool
    transformers: dict[int, TemporalTransformer]
    positions: dict[int, torch.Tensor]

    @property
    def acts(self) -> bool:
        """False at strength 0, where a call is to be the bare model's to the last bit."""
        return isinstance(self.strength, torch.Tensor) or self.strength != 0

    def add(self, layer: torch.nn.Module, x: torch.Tensor) -> torch.Tensor:
        """x, (b * frames, c, h, w), the output of layer, with the motion that belongs there."""
        transformer = self.transformers.get(id(layer))
        return x if transformer is None else transformer(x, self.frames, self.strength, self.pooled_norm, self.positions[x.shape[1]])


@dataclass(frozen=True)
class Call:
    """A wrapper of BaseModel.apply_model, which hands every UNet call its Motion.

    module: the motion module that Apply connected.
    uuid: what ComfyUI's copies of it for other GPUs have in common with it; None where it makes none.
    tables: the positional encodings that its calls have needed, by frames, dtype and device.
    """

    recipe: Recipe
    module: MotionModel
    uuid: UUID | None
    strength: Strength
    pooled_norm: bool
    tables: dict[tuple[int, torch.dtype, torch.device], dict[int, torch.Tensor]] = field(default_factory=dict, compare=False)

    def __call__(self, executor, x, t, c_concat, c_crossattn, control, transformer_options, **kwargs):
        # from the tensor: context windows hand over other lengths than the clip's
        frames = len(x) // len(transformer_options.get("cond_or_uncond", (0,)))
        check_frames(self.recipe.file, self.recipe.max_frames, frames)
        shown, total = frames_in_call(transformer_options, frames)
        strength = self.strength.at(shown, total)
        if isinstance(strength, torch.Tensor):
            strength = strength.to(x) if strength.any() else 0.0  # it comes on the CPU, and nobody waits for this
        # from the model at hand: ComfyUI may load a MODEL's clone anew, with other layers
        places = places_of(executor.class_obj.diffusion_model, self.module.layout.mid_block)
        running = self._loaded(executor.class_obj.current_patcher)
        transformers = {id(layer): transformer for (layer, _), transformer in zip(places, running, strict=True)}
        like = torch.empty(0, dtype=executor.class_obj.manual_cast_dtype or executor.class_obj.get_dtype(), device=x.device)
        motion = Motion(frames, strength, self.pooled_norm, transformers, self._positions(frames, {width for _, width in places}, like))
        options = spatial.with_fast_attention(transformer_options, x.device) if motion.acts else transformer_options
        if list(shown) != list(range(total)):
            # IPAdapter and others look for it, to take their own pictures of these frames; the name is AnimateDiff-Evolved's
            options = options | {"ad_params": {"sub_idxs": list(shown), "full_length": total, "context_length": frames}}
        return executor(x, t, c_concat, c_crossattn, control, options, **kwargs | {"time_context": motion})

    @functools.cached_property
    def _own(self) -> list[TemporalTransformer]:
        return list(self.module.transformers().values())

    def _loaded(self, model: comfy.model_patcher.ModelPatcher | None) -> list[TemporalTransformer]:
        """The transformers that ComfyUI has loaded with the model that runs, copies where that is a copy on another GPU."""
        connected = model.get_additional_models_with_key(KEY) if model is not None and self.uuid is not None else []
        copies = [each.model for each in connected if each.clone_base_uuid == self.uuid and each.model is not self.module]
        return list(copies[0].transformers().values()) if copies else self._own

    def _positions(self, frames: int, widths: set[int], like: torch.Tensor) -> dict[int, torch.Tensor]:
        key = frames, like.dtype, like.device
        if key not in self.tables:
            self.tables[key] = {width: positional_encoding(frames, width, like) for width in widths}
        return self.tables[key]


def install(model: comfy.model_patcher.ModelPatcher, call: Call) -> None:
    """Every run of model and of its clones has the call's motion."""
    model.add_wrapper_with_key(comfy.patcher_extension.WrappersMP.APPLY_MODEL, KEY, call)
    for handler in HANDLERS:
        model.set_model_forward_timestep_embed_patch(handler)


def _after_attention(layer, x, emb, context, transformer_options, output_shape, motion: Motion, *_):
    x = spatial.spatial_transformer(layer, x, context, transformer_options) if motion.acts else layer(x, context, transformer_options)
    if "transformer_index" in transformer_options:  # the handler replaces the code that counts
        transformer_options["transformer_index"] += 1
    return motion.add(layer, x)


def _after_resblock(layer, x, emb, context, transformer_options, output_shape, motion: Motion, *_):
    return motion.add(layer, spatial.resblock(layer, x, emb) if motion.acts else layer(x, emb))


def _upsample(layer, x, emb, context, transformer_options, output_shape, motion: Motion, *rest):
    # ComfyUI asks the first handler alone, and this one has nothing to say where somebody else has
    others = [handler for kind, handler in transformer_options["patches"]["forward_timestep_embed_patch"] if isinstance(layer, kind) and handler is not _upsample]
    if others:
        return others[0](layer, x, emb, context, transformer_options, output_shape, motion, *rest)
    return spatial.upsample(layer, x, output_shape) if motion.acts else layer(x, output_shape=output_shape)


HANDLERS = (SpatialTransformer, _after_attention), (ResBlock, _after_resblock), (Upsample, _upsample)
"""The layers of the UNet that run through here, as set_model_forward_timestep_embed_patch takes them."""


def places_of(unet: torch.nn.Module, mid_block: bool) -> list[tuple[torch.nn.Module, int]]:
    """The layers behind which a temporal transformer stands, with the width of their output, in the order they run.

    Every block with a ResBlock has one (not conv_in, not Downsample), behind its attention where it has attention.
    """
    found = []
    for block in (*unet.input_blocks, *([unet.middle_block] if mid_block else []), *unet.output_blocks):
        resblocks = [layer for layer in block if isinstance(layer, ResBlock)]
        attentions = [layer for layer in block if isinstance(layer, SpatialTransformer)]
        found += [((attentions or resblocks)[0], resblocks[0].out_channels)] if resblocks else []
    return found
