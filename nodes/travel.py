"""Prompt Travel."""

from comfy_api.latest import io

from ..motion_modules import keyframes
from . import _host
from .types import CATEGORY, frames_input


class PromptTravel(io.ComfyNode):
    """A prompt that changes over the frames."""

    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="AnimateDiffTurbo_PromptTravel",
            display_name="Prompt Travel",
            category=CATEGORY,
            description="Prompts at frames of the clip; between two of them one turns into the other. Use it in place of CLIP Text Encode.",
            search_aliases=["animatediff", "prompt schedule", "batch prompt schedule", "prompt scheduling", "prompt keyframes"],
            inputs=[
                io.Clip.Input("clip", tooltip="The text encoder of the checkpoint."),
                io.String.Input(
                    "prompts",
                    multiline=True,
                    dynamic_prompts=False,
                    default="0: a red circle moving right on a black background\n8: a blue circle moving right on a black background",
                    tooltip="The frame, counted from 0, a colon and the prompt, one on each line or with | between. Two frames with one prompt hold it. "
                    "(words:1.2) weighs words.",
                ),
                frames_input("Length of the clip in frames, the same number as in Empty Video Latent."),
            ],
            outputs=[io.Conditioning.Output("conditioning", tooltip="For positive or negative of Turbo Sampler; works with Context Windows.")],
        )

    @classmethod
    def execute(cls, clip, prompts: str, num_frames: int) -> io.NodeOutput:
        found = keyframes.parse(prompts)
        _host.show("\n".join(f"{frame}: {text}" for frame, text in found.items()))
        return io.NodeOutput(_host.travel(clip, found, num_frames))
