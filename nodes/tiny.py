"""Load Tiny Turbo."""

from comfy_api.latest import io

from . import _host
from .types import CATEGORY, MotionAdapter


class LoadTinyTurbo(io.ComfyNode):
    """A whole model without a download."""

    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="AnimateDiffTurbo_LoadTinyTurbo",
            display_name="Load Tiny Turbo",
            category=CATEGORY,
            description="A tiny text to video model that comes with this pack: 128x128, 4 steps, a few seconds on any computer. It knows circles, squares, "
            "triangles and stars in eight colours, moving left, right, up or down on a black, grey or navy background. To try the nodes before any download.",
            search_aliases=["animatediff", "tiny model", "demo", "no download", "first run", "test", "checkpoint loader"],
            inputs=[],
            outputs=[
                io.Model.Output("model", tooltip="The UNet, SD1.5's in small; for Apply Motion Adapter. Full-sized LoRAs and ControlNets do not fit."),
                io.Clip.Output("clip", tooltip="The text encoder; knows about two hundred words."),
                io.Vae.Output("vae", tooltip="Decodes the frames."),
                MotionAdapter.Output("motion_adapter", display_name="motion adapter", tooltip="Its motion adapter: 4 steps, 16 frames."),
            ],
        )

    @classmethod
    def execute(cls) -> io.NodeOutput:
        tiny = _host.load_tiny()
        return io.NodeOutput(tiny.model, tiny.clip, tiny.vae, tiny.adapter)
