"""Apply Motion Adapter."""

from comfy_api.latest import io

from . import _host
from .types import CATEGORY, MotionAdapter


class ApplyMotionAdapter(io.ComfyNode):
    """A MODEL that animates."""

    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="AnimateDiffTurbo_ApplyMotionAdapter",
            display_name="Apply Motion Adapter",
            category=CATEGORY,
            description="Lets an SD1.5 model sample the frames of a latent batch as one clip. The model you connect stays as it is, LoRAs included.",
            search_aliases=["animatediff", "apply animatediff model", "motion module", "animatelcm", "lightning", "use evolved sampling"],
            inputs=[
                io.Model.Input("model", tooltip="An SD1.5 checkpoint, with its LoRAs applied before or after this node."),
                MotionAdapter.Input("motion_adapter", display_name="motion adapter", tooltip="From Load Motion Adapter."),
                io.Float.Input(
                    "strength",
                    default=1.0,
                    min=0.0,
                    max=2.0,
                    step=0.05,
                    tooltip="How much of the motion is added, 0 to 2. 1 is as trained; 0 adds none, only the adapter's noise schedule stays.",
                ),
            ],
            outputs=[
                io.Model.Output(
                    "animated_model",
                    display_name="model",
                    tooltip="The model with motion, the adapter's noise schedule and its recipe. For Turbo Sampler; with KSampler use euler (Lightning) or "
                    "lcm (AnimateLCM) and the scheduler simple.",
                )
            ],
        )

    @classmethod
    def execute(cls, model, motion_adapter: _host.MotionAdapter, strength: float) -> io.NodeOutput:
        return io.NodeOutput(_host.apply_motion(model, motion_adapter, strength))
