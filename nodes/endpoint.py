"""The inputs of fal's "AnimateDiff Turbo" endpoint as node inputs, once, for the node that calls it and for the one that renders here."""

from comfy_api.latest import io

from .. import schema


def _whole(name: str, number: schema.Number, tooltip: str, **options) -> io.Int.Input:
    return io.Int.Input(name, default=int(number.default), min=int(number.minimum), max=int(number.maximum), tooltip=tooltip, **options)


def text_inputs() -> list[io.Input]:
    """prompt and negative_prompt."""
    return [
        io.String.Input("prompt", multiline=True, default="", tooltip="What the clip should show; the more descriptive the better."),
        io.String.Input("negative_prompt", multiline=True, default=schema.NEGATIVE_PROMPT, tooltip="What it should not show. Without effect at guidance scale 1."),
    ]


def sampling_inputs(steps: schema.Number = schema.NUM_INFERENCE_STEPS, fps: str = "Frames per second of the video, 1 to 16.") -> list[io.Input]:
    """num_inference_steps, guidance_scale, seed and fps; fps is what is said of it."""
    guidance = schema.GUIDANCE_SCALE
    return [
        _whole("num_inference_steps", steps, "How many times the model runs, 1 to 50; 4 to 12 are recommended."),
        io.Float.Input(
            "guidance_scale", default=guidance.default, min=guidance.minimum, max=guidance.maximum, step=0.1,
            tooltip="How strongly the prompts pull, 0 to 20. 1 and less ignore the negative prompt; above 2 turbo models burn out.",
        ),
        _whole("seed", schema.SEED, "The same seed and prompt give the same clip.", control_after_generate=io.ControlAfterGenerate.fixed),
        _whole("fps", schema.FPS, fps),
    ]  # fmt: skip


def text_to_video_inputs() -> list[io.Input]:
    """Every input of turbo/text-to-video, in its order."""
    size = "in pixels, a multiple of 8; used with custom only."
    return [
        *text_inputs(),
        _whole("num_frames", schema.NUM_FRAMES, "Length of the clip in frames, 1 to 32; 16 look best."),
        *sampling_inputs(),
        io.Combo.Input(
            "video_size", options=[*schema.VIDEO_SIZES, schema.CUSTOM_SIZE], default=schema.DEFAULT_SIZE,
            tooltip="Size of the picture. square is 512x512; custom uses width and height below.",
        ),
        _whole("width", schema.SIDE, f"Width {size}", step=8, advanced=True),
        _whole("height", schema.SIDE, f"Height {size}", step=8, advanced=True),
    ]  # fmt: skip


def video_to_video_inputs() -> list[io.Input]:
    """Every input of turbo/video-to-video but the video, in its order."""
    strength = schema.STRENGTH
    return [
        *text_inputs(),
        *sampling_inputs(schema.VIDEO_INFERENCE_STEPS, "Frames taken per second of the video, 1 to 16."),
        _whole("first_n_seconds", schema.FIRST_N_SECONDS, "How many seconds of the video are used, 2 to 4."),
        io.Float.Input(
            "strength", default=strength.default, min=strength.minimum, max=strength.maximum, step=0.05,
            tooltip="How much of the video is replaced, 0 to 1; lower keeps more.",
        ),
    ]  # fmt: skip
