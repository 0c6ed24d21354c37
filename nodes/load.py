"""Load Motion Adapter and Load Motion LoRA."""

from comfy_api.latest import io

from ..motion_modules import config, lora
from ..motion_modules.library import Library
from . import _host
from .types import CATEGORY, MotionAdapter

LIBRARY = Library()
"""The adapters that are in use in this ComfyUI."""


class LoadMotionAdapter(io.ComfyNode):
    """A motion adapter file, identified."""

    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="AnimateDiffTurbo_LoadMotionAdapter",
            display_name="Load Motion Adapter",
            category=CATEGORY,
            description="Loads AnimateDiff-Lightning, AnimateLCM or AnimateDiff v1-v3 from models/animatediff_models and finds out which one it is.",
            search_aliases=["animatediff", "animatelcm", "lightning", "motion module", "motion model", "load animatediff model", "lcm", "gif"],
            inputs=[
                io.Combo.Input(
                    "file",
                    options=_host.listed_files(_host.ADAPTER_FOLDER),
                    tooltip="A file in models/animatediff_models: .safetensors or .ckpt, in the original or in diffusers' layout, for SD1.5.",
                ),
                io.Combo.Input(
                    "family",
                    options=[config.AUTO, *config.ADAPTERS],
                    default=config.AUTO,
                    tooltip="How the adapter was trained, which decides schedule, sampler, steps and guidance. auto reads it from the file and, where "
                    "files look alike (v2, Lightning, AnimateLCM), from its name; what was found is written under the node.",
                ),
            ],
            outputs=[MotionAdapter.Output("motion_adapter", display_name="motion adapter", tooltip="Connect to Apply Motion Adapter.")],
        )

    @classmethod
    def fingerprint_inputs(cls, file: str, family: str):
        """Changes when the file is replaced on disk."""
        return family, *_host.file_state(_host.ADAPTER_FOLDER, file)

    @classmethod
    def execute(cls, file: str, family: str) -> io.NodeOutput:
        loaded = LIBRARY.load(_host.file_path(_host.ADAPTER_FOLDER, file), copy=not _host.maps_files())
        name = loaded.path.name
        if family == config.AUTO:
            row, how = config.identify(name, loaded.layout, loaded.positions)
        else:
            row, how = config.check(name, config.ADAPTERS[family], loaded.layout), f"{family}, as chosen"
        adapter = _host.MotionAdapter(loaded, row)
        advice = [f"{row.steps} steps, guidance {row.guidance:g}, up to {adapter.recipe.max_frames} frames"]
        advice += [f"Add the LoRA {row.lora}"] if row.lora else []
        _host.show(f"{name}: {how}. {'. '.join(advice)}. {row.warning}".strip())
        return io.NodeOutput(adapter)


class LoadMotionLora(io.ComfyNode):
    """A motion adapter that moves in a certain way."""

    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="AnimateDiffTurbo_LoadMotionLora",
            display_name="Load Motion LoRA",
            category=CATEGORY,
            description="Adds a camera movement such as v2_lora_ZoomIn.ckpt to a motion adapter. Use one node for each; a new strength reloads nothing.",
            search_aliases=["animatediff", "motion lora", "camera", "zoom", "pan", "load animatediff lora"],
            inputs=[
                MotionAdapter.Input("motion_adapter", display_name="motion adapter", tooltip="From Load Motion Adapter, or from another Load Motion LoRA."),
                io.Combo.Input(
                    "file",
                    options=_host.listed_files(_host.LORA_FOLDER),
                    tooltip="A file in models/animatediff_motion_lora: .safetensors or .ckpt, in the original or in diffusers' layout. Published ones are made "
                    "for v2 and fit Lightning and AnimateLCM too.",
                ),
                io.Float.Input(
                    "strength",
                    default=0.8,
                    min=-2.0,
                    max=2.0,
                    step=0.05,
                    tooltip="How much of it is added, -2 to 2. 0.7 to 0.8 moves well without the watermark of the training videos; 0 adds nothing; below 0 it "
                    "moves the other way.",
                ),
            ],
            outputs=[MotionAdapter.Output("motion_adapter_with_lora", display_name="motion adapter", tooltip="Connect to Apply Motion Adapter.")],
        )

    @classmethod
    def fingerprint_inputs(cls, file: str, strength: float):
        """Changes when the file is replaced on disk."""
        return strength, *_host.file_state(_host.LORA_FOLDER, file)

    @classmethod
    def execute(cls, motion_adapter: _host.MotionAdapter, file: str, strength: float) -> io.NodeOutput:
        loaded = lora.load(_host.file_path(_host.LORA_FOLDER, file))
        adapter = motion_adapter.with_lora(loaded, strength)
        fitting = loaded.fitting(motion_adapter.checkpoint.layout)
        left_out = f" {len(loaded.changes) - len(fitting)} more need a mid block, which this adapter has not." if len(fitting) < len(loaded.changes) else ""
        _host.show(f"{loaded.path.name}: changes {len(fitting)} weights of {motion_adapter.recipe.file}, strength {strength:g}.{left_out}")
        return io.NodeOutput(adapter)
