"""Text to Video and Video to Video (fal.ai), and the sibling that renders here."""

import asyncio
import logging

from comfy_api.latest import io

from ..fal.job import Options
from ..fal.request import Upload, text_to_video, video_to_video
from ..fal.upload import from_frames
from . import _host
from .endpoint import text_to_video_inputs, video_to_video_inputs
from .types import CATEGORY

logger = logging.getLogger(__name__)

STOP, AGAIN = "stop", "submit again"
NO_LORA = "none"


def _job_inputs() -> list[io.Input]:
    """What every remote node asks besides the endpoint's inputs."""
    return [
        io.Int.Input(
            "timeout_minutes", default=10, min=1, max=60, advanced=True, display_name="timeout minutes",
            tooltip="After so many minutes, 1 to 60, fal.ai is asked to cancel the job.",
        ),
        io.Combo.Input(
            "if_lost", options=[STOP, AGAIN], default=STOP, advanced=True, display_name="if lost",
            tooltip="What to do where a job may have been started and its answer was lost, or its result is gone: stop, or send it again and maybe pay twice.",
        ),
    ]  # fmt: skip


def _outputs() -> list[io.Output]:
    return [
        io.Image.Output("images", tooltip="The frames."),
        io.Video.Output("result", display_name="video", tooltip="The clip, for Save Video and other video nodes."),
        io.Int.Output("used_seed", display_name="seed", tooltip="The seed that was used."),
    ]


def _remote_outputs() -> list[io.Output]:
    return [
        *_outputs(),
        io.String.Output("url", tooltip="Where fal.ai keeps the video; everybody who has the address can see it."),
        io.String.Output("request_id", display_name="request id", tooltip="fal.ai's number of the job."),
    ]


class FalTextToVideo(io.ComfyNode):
    """A clip, rendered at fal.ai."""

    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="AnimateDiffTurbo_FalTextToVideo",
            display_name="Text to Video (fal.ai)",
            category=CATEGORY,
            description="Renders a clip at fal.ai (fal-ai/fast-animatediff/turbo/text-to-video) instead of on this machine. Needs an account and a key (FAL_KEY), "
            "sends the prompt there and may cost money; the same inputs are never paid for twice. fal.ai keeps the prompt for 30 days and the video at a "
            "public address for a week or longer.",
            search_aliases=["animatediff", "fal", "remote", "api", "cloud", "text to video", "t2v"],
            inputs=[
                *text_to_video_inputs(),
                *_job_inputs(),
            ],
            outputs=_remote_outputs(),
        )

    @classmethod
    async def execute(cls, timeout_minutes: int, if_lost: str, **inputs) -> io.NodeOutput:
        found = await _host.run_at_fal(text_to_video(**inputs), Options(timeout_minutes, if_lost == AGAIN))
        images, video = await _host.opened(found)
        if len(images) != inputs["num_frames"]:
            logger.warning("fal.ai made %d frames where %d were asked for.", len(images), inputs["num_frames"])
        return io.NodeOutput(images, video, found.seed, found.url, found.request_id)


class FalVideoToVideo(io.ComfyNode):
    """A video in another look, rendered at fal.ai."""

    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="AnimateDiffTurbo_FalVideoToVideo",
            display_name="Video to Video (fal.ai)",
            category=CATEGORY,
            description="Renders a video in the look of a prompt at fal.ai (fal-ai/fast-animatediff/turbo/video-to-video). Needs an account and a key (FAL_KEY), "
            "sends the prompt and the first seconds of the video there, where both videos have public addresses for a week or longer, and may cost money; "
            "the same inputs are never paid for twice.",
            search_aliases=["animatediff", "fal", "remote", "api", "cloud", "video to video", "v2v"],
            inputs=[
                io.Video.Input("video", tooltip="The video to start from. Its first seconds are sent, without sound and without what its file says of where it comes from."),
                *video_to_video_inputs(),
                *_job_inputs(),
            ],
            outputs=_remote_outputs(),
        )

    @classmethod
    async def execute(cls, video, timeout_minutes: int, if_lost: str, **inputs) -> io.NodeOutput:
        upload = await asyncio.to_thread(_upload, video, inputs["first_n_seconds"])
        found = await _host.run_at_fal(video_to_video(**inputs, video=upload), Options(timeout_minutes, if_lost == AGAIN))
        images, result = await _host.opened(found)
        return io.NodeOutput(images, result, found.seed, found.url, found.request_id)


def _upload(video, seconds: float) -> Upload:
    """The first seconds of a VIDEO, its pictures alone."""
    part = video.as_trimmed(0, seconds, strict_duration=False) or video
    components = part.get_components()
    return from_frames(components.images[: max(1, round(seconds * components.frame_rate))], components.frame_rate)


class TextToVideo(io.ComfyNode):
    """A clip, rendered here, with the inputs of the remote node."""

    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="AnimateDiffTurbo_TextToVideo",
            display_name="Text to Video (local)",
            category=CATEGORY,
            description="Checkpoint, motion adapter and prompts to a clip in one node, with the inputs of Text to Video (fal.ai): swap one for the other. "
            "It runs the nodes of this pack, and ComfyUI keeps what has not changed.",
            search_aliases=["animatediff", "text to video", "t2v", "animatelcm", "lightning", "all in one"],
            inputs=[
                *text_to_video_inputs(),
                io.Combo.Input("checkpoint", options=_host.listed_files("checkpoints"), tooltip="An SD1.5 checkpoint in models/checkpoints."),
                io.Combo.Input("adapter", options=_host.listed_files(_host.ADAPTER_FOLDER), tooltip="A motion adapter in models/animatediff_models; AnimateLCM fits the 8 steps above."),
                io.Combo.Input("lora", options=[NO_LORA, *_host.listed_files("loras")], tooltip="AnimateLCM_sd15_t2v_lora.safetensors for AnimateLCM; none for Lightning."),
                io.Float.Input("lora_strength", default=0.8, min=0.0, max=2.0, step=0.05, display_name="lora strength", tooltip="How much of the LoRA is added, 0 to 2."),
            ],
            outputs=_outputs(),
            enable_expand=True,
        )

    @classmethod
    def execute(cls, prompt, negative_prompt, num_frames, num_inference_steps, guidance_scale, seed, fps, video_size, width, height, **models) -> io.NodeOutput:
        graph = _host.GraphBuilder()
        base = graph.node("CheckpointLoaderSimple", ckpt_name=models["checkpoint"])
        model = base.out(0)
        if models["lora"] != NO_LORA:
            model = graph.node("LoraLoaderModelOnly", model=model, lora_name=models["lora"], strength_model=models["lora_strength"]).out(0)
        adapter = graph.node("AnimateDiffTurbo_LoadMotionAdapter", file=models["adapter"], family="auto")
        animated = graph.node("AnimateDiffTurbo_ApplyMotionAdapter", model=model, motion_adapter=adapter.out(0), strength=1.0)
        positive, negative = (graph.node("CLIPTextEncode", clip=base.out(1), text=text) for text in (prompt, negative_prompt))
        latent = graph.node("AnimateDiffTurbo_EmptyVideoLatent", video_size=video_size, width=width, height=height, num_frames=num_frames)
        sampled = graph.node(
            "AnimateDiffTurbo_TurboSampler", model=animated.out(0), positive=positive.out(0), negative=negative.out(0), latent=latent.out(0), seed=seed,
            steps=num_inference_steps, guidance=guidance_scale, guidance_steps=0, denoise=1.0,
        )  # fmt: skip
        frames = graph.node("VAEDecode", samples=sampled.out(0), vae=base.out(2))
        video = graph.node("CreateVideo", images=frames.out(0), fps=float(fps))
        return io.NodeOutput(frames.out(0), video.out(0), seed, expand=graph.finalize())
