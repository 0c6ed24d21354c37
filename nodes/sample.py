"""Empty Video Latent, Turbo Sampler and Turbo Schedule."""

from comfy_api.latest import io

from .. import schema
from ..motion_modules import schedule
from . import _host
from .types import CATEGORY, frames_input

STEPS = "How many times the UNet runs, 1 to 50 (AnimateLCM (repo): 100). 0 takes the adapter's own number: a Lightning file works well at its own only, AnimateLCM at 4 to 8."
DENOISE = "How much of the given frames is replaced, above 0 up to 1. 1 starts from noise; lower keeps more of a video given as latent and may run fewer steps."


class EmptyVideoLatent(io.ComfyNode):
    """Where a clip starts."""

    @classmethod
    def define_schema(cls):
        side = {"min": int(schema.SIDE.minimum), "max": int(schema.SIDE.maximum), "step": 8, "default": int(schema.SIDE.default)}
        return io.Schema(
            node_id="AnimateDiffTurbo_EmptyVideoLatent",
            display_name="Empty Video Latent",
            category=CATEGORY,
            description="An empty clip: a latent batch with one entry for each frame.",
            search_aliases=["animatediff", "empty latent image", "video size", "frames"],
            inputs=[
                io.Combo.Input(
                    "video_size",
                    options=[*schema.VIDEO_SIZES, schema.CUSTOM_SIZE],
                    default=schema.DEFAULT_SIZE,
                    display_name="video size",
                    tooltip="Size of the picture. square is 512x512, what SD1.5 and the adapters were trained on; custom uses width and height below.",
                ),
                io.Int.Input("width", **side, tooltip="Width in pixels, a multiple of 8; used with custom only."),
                io.Int.Input("height", **side, tooltip="Height in pixels, a multiple of 8; used with custom only."),
                frames_input(
                    "Length of the clip in frames. Adapters are trained on 16 and look best there; most know up to 32; longer clips need Context Windows."
                ),
            ],
            outputs=[io.Latent.Output("latent", tooltip="The empty clip, for Turbo Sampler.")],
        )

    @classmethod
    def execute(cls, video_size: str, width: int, height: int, num_frames: int) -> io.NodeOutput:
        return io.NodeOutput(_host.empty_latent(*schema.size(video_size, width, height), num_frames))


class TurboSampler(io.ComfyNode):
    """The clip, sampled as the adapter was trained."""

    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="AnimateDiffTurbo_TurboSampler",
            display_name="Turbo Sampler",
            category=CATEGORY,
            description="Samples a clip with the schedule, sampler, steps and guidance that its motion adapter was trained for.",
            search_aliases=["animatediff", "ksampler", "lightning", "animatelcm", "lcm", "sample video", "text to video"],
            inputs=[
                io.Model.Input("model", tooltip="From Apply Motion Adapter."),
                io.Conditioning.Input("positive", tooltip="What the clip should show."),
                io.Conditioning.Input("negative", tooltip="What it should not show. Without effect at guidance 1."),
                io.Latent.Input("latent", tooltip="The clip to start from, a batch of frames: Empty Video Latent, or an encoded video with denoise below 1."),
                io.Int.Input(
                    "seed",
                    default=0,
                    min=0,
                    max=0xFFFFFFFFFFFFFFFF,
                    control_after_generate=True,
                    tooltip="The same seed gives the same clip.",
                ),
                io.Int.Input("steps", default=0, min=0, max=100, tooltip=STEPS),
                io.Float.Input(
                    "guidance",
                    default=-1.0,
                    min=-1.0,
                    max=schema.GUIDANCE_SCALE.maximum,
                    step=0.1,
                    tooltip="How strongly the prompts pull, 1 to 20. -1 takes the adapter's own. 1, or anything below, ignores the negative prompt and costs "
                    "about half; above 2 turbo adapters burn out.",
                ),
                io.Int.Input(
                    "guidance_steps",
                    default=0,
                    min=0,
                    max=100,
                    display_name="guidance steps",
                    advanced=True,
                    tooltip="Apply guidance in this many first steps only; each later step costs about half. 0 applies it in all.",
                ),
                io.Float.Input("denoise", default=1.0, min=0.01, max=1.0, step=0.01, tooltip=DENOISE),
            ],
            outputs=[io.Latent.Output("samples", display_name="latent", tooltip="The sampled clip, for VAE Decode.")],
        )

    @classmethod
    def execute(cls, model, positive, negative, latent, seed, steps, guidance, guidance_steps, denoise) -> io.NodeOutput:
        adapter = _host.recipe(model).adapter
        guidance = adapter.guidance if guidance < 0 else max(1.0, guidance)
        sigmas = schedule.sigmas(adapter, steps, denoise)
        return io.NodeOutput(_host.sample(model, positive, negative, latent, seed, sigmas, guidance, guidance_steps))


class TurboSchedule(io.ComfyNode):
    """The adapter's recipe for ComfyUI's own sampler nodes."""

    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="AnimateDiffTurbo_TurboSchedule",
            display_name="Turbo Schedule",
            category=CATEGORY,
            description="The sampler, sigmas and guidance that a motion adapter was trained for, for SamplerCustomAdvanced and SamplerCustom.",
            search_aliases=["animatediff", "sigmas", "scheduler", "lightning", "animatelcm", "lcm", "custom sampler"],
            inputs=[
                io.Model.Input("model", tooltip="From Apply Motion Adapter."),
                io.Int.Input("steps", default=0, min=0, max=100, tooltip=STEPS),
                io.Float.Input("denoise", default=1.0, min=0.01, max=1.0, step=0.01, tooltip=DENOISE),
            ],
            outputs=[
                io.Sampler.Output("sampler", tooltip="The adapter's sampler: euler, or lcm."),
                io.Sigmas.Output("sigmas", tooltip="The adapter's noise levels, ending at 0."),
                io.Float.Output("guidance", tooltip="The adapter's own guidance, for CFGGuider."),
            ],
        )

    @classmethod
    def execute(cls, model, steps: int, denoise: float) -> io.NodeOutput:
        adapter = _host.recipe(model).adapter
        timesteps = schedule.timesteps(adapter, steps, denoise)
        _host.show(f"{adapter.name}: timesteps {', '.join(map(str, timesteps))}, {adapter.sampler}.")
        return io.NodeOutput(_host.sampler(adapter), schedule.sigmas(adapter, steps, denoise), adapter.guidance)
