"""Load Motion Adapter."""

import os

from comfy_api.latest import io

from ..motion_modules import checkpoint, config
from . import _host
from .types import CATEGORY, MotionAdapter


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
                    options=_host.adapter_files(),
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
        stat = os.stat(_host.adapter_path(file))
        return file, family, stat.st_mtime_ns, stat.st_size

    @classmethod
    def execute(cls, file: str, family: str) -> io.NodeOutput:
        loaded = checkpoint.load(_host.adapter_path(file), copy=not _host.maps_files())
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
