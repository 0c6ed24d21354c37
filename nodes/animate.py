"""Apply Motion Adapter."""

from comfy_api.latest import io

from ..motion_modules import keyframes
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
                io.String.Input(
                    "strength_over_time",
                    default="",
                    optional=True,
                    advanced=True,
                    display_name="strength over time",
                    tooltip="Keyframes by which strength is multiplied, the frame counted from 0 and a number: 0: 0.2 | 8: 1. Between them it changes evenly. "
                    "Empty is 1 throughout.",
                ),
                io.Mask.Input("mask", optional=True, tooltip="Where there is motion: white moves, black stands for itself. One mask, or one for each frame."),
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
    def execute(cls, model, motion_adapter: _host.MotionAdapter, strength: float, strength_over_time: str = "", mask=None) -> io.NodeOutput:
        curve = keyframes.numbers(strength_over_time) if strength_over_time.strip() else {}
        return io.NodeOutput(_host.apply_motion(model, motion_adapter, _host.Strength.of(strength, curve, mask)))
