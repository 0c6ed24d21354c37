"""Load Video Frames and Combine Video."""

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import torch
from comfy_api.latest import InputImpl, Types, io, ui

from .. import schema
from ..video.decode import decode
from ..video.encode import DEFAULT_QUALITY, FORMATS, encode
from ..video.errors import explain_writing
from ..video.pictures import play_order, played
from . import _host, names
from .types import CATEGORY, MAX_FRAMES

MAX_COPIES = 100
DEFAULT_PREFIX = "AnimateDiffTurbo"


class LoadVideoFrames(io.ComfyNode):
    """A file to frames."""

    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="AnimateDiffTurbo_LoadVideoFrames",
            display_name="Load Video Frames",
            category=CATEGORY,
            description="Reads a video at the frame rate that adapters are trained on, a few seconds of it, with its sound. For video to video: VAE Encode, then "
            "Turbo Sampler with denoise below 1.",
            search_aliases=["animatediff", "load video", "vhs load video", "video to video", "vid2vid", "v2v", "video to images"],
            inputs=[
                io.Combo.Input("file", options=_host.input_videos(), upload=io.UploadType.video, tooltip="A video in ComfyUI's input folder; any common format."),
                io.Float.Input(
                    "fps",
                    default=schema.FPS.default,
                    min=0.0,
                    max=240.0,
                    step=0.01,
                    tooltip="Frames taken per second of video, up to 240. Adapters are trained at 8; 0 takes every frame.",
                ),
                io.Float.Input(
                    "first_n_seconds",
                    default=3.0,
                    min=0.0,
                    max=3600.0,
                    step=0.1,
                    display_name="first n seconds",
                    tooltip="Length that is read in seconds, up to an hour; 3 at 8 fps are 24 frames. 0 reads to the end.",
                ),
                io.Float.Input(
                    "skip_seconds",
                    default=0.0,
                    min=0.0,
                    max=86400.0,
                    step=0.1,
                    advanced=True,
                    display_name="skip seconds",
                    tooltip="Seconds that are left out at the start, up to a day.",
                ),
                io.Int.Input("max_frames", default=0, min=0, max=MAX_FRAMES, advanced=True, display_name="max frames", tooltip="No more than this; 0 is no limit."),
            ],
            outputs=[
                io.Image.Output("images", tooltip="The frames, for VAE Encode."),
                io.Audio.Output("audio", tooltip="Their sound, for Combine Video; nothing when the file is silent."),
                io.Float.Output("frame_rate", display_name="fps", tooltip="Frames per second, for Combine Video."),
            ],
        )

    @classmethod
    def validate_inputs(cls, file: str):
        """The list of files is as old as the page; a new upload is no error."""
        return _host.is_input(file) or f"{file} is not in the input folder; upload a video, or choose another one."

    @classmethod
    def fingerprint_inputs(cls, file: str, **rest):
        """Changes when the file is replaced on disk."""
        return _host.input_state(file), *sorted(rest.items())

    @classmethod
    def execute(cls, file, fps, first_n_seconds, skip_seconds, max_frames) -> io.NodeOutput:
        bar = _host.Progress(100)
        clip = decode(_host.input_path(file), fps, skip_seconds, first_n_seconds, max_frames, watch=lambda share: bar(round(100 * share)))
        count, height, width = clip.frames.shape[:3]
        _host.show(f"{file}: {count} frame{'s' * (count != 1)} of {width}x{height} at {float(clip.fps):g} fps, {'with' if clip.audio else 'no'} sound.")
        return io.NodeOutput(clip.frames, clip.audio, float(clip.fps))


def file_inputs() -> list[io.Input]:
    """What a node asks for that writes a file."""
    return [
        io.Float.Input(
            "fps",
            default=schema.FPS.default,
            min=0.01,
            max=240.0,
            step=0.01,
            tooltip="Frames shown per second, up to 240 (webp: 90). Adapters are trained at 8.",
        ),
        io.Combo.Input("format", options=list(FORMATS), default="mp4", tooltip="mp4 (H.264) plays everywhere; webm (VP9); webp is an animated picture."),
        io.Int.Input("quality", default=DEFAULT_QUALITY, min=0, max=100, tooltip="0 is the smallest file, 100 the best picture (lossless for webp)."),
        io.Boolean.Input("pingpong", default=False, tooltip="Play forward, then backward, so that the end meets the start."),
        io.Int.Input(
            "loop_count",
            default=0,
            min=0,
            max=MAX_COPIES,
            display_name="loop count",
            advanced=True,
            tooltip="mp4 and webm: further copies of the clip in the file. webp: how often it plays, 0 for endlessly.",
        ),
        io.String.Input("filename_prefix", default=DEFAULT_PREFIX, display_name="filename prefix", tooltip="Start of the file's name; a / makes a folder."),
        io.Boolean.Input(
            "save",
            default=True,
            label_on="save",
            label_off="preview only",
            tooltip="Save to the output folder, or write to the temp folder, which ComfyUI empties when it starts.",
        ),
        io.Audio.Input("audio", optional=True, tooltip="Sound for mp4 and webm, cut at the end of the clip."),
    ]


def file_outputs() -> list[io.Output]:
    """What such a node gives."""
    return [
        io.Video.Output("video", tooltip="The clip, for Save Video and other video nodes."),
        io.String.Output("file", tooltip="Full path of the written file."),
    ]


@dataclass(frozen=True)
class Target:
    """Where a file will lie: its path, the folder in ComfyUI's output (or temp) folder, and whether it is to be kept."""

    path: Path
    subfolder: str
    save: bool

    @property
    def preview(self) -> ui.PreviewVideo:
        """The file as the node shows it."""
        return ui.PreviewVideo([ui.SavedResult(self.path.name, self.subfolder, io.FolderType.output if self.save else io.FolderType.temp)])


def target(filename_prefix: str, format: str, save: bool, width: int, height: int, hidden: io.HiddenHolder | None) -> Target:
    """A new file's place; raises ValueError for a prefix that leads out of ComfyUI's folders, VideoError when there is no folder to write to."""
    if hidden:
        filename_prefix = names.filled(filename_prefix, hidden.prompt, (hidden.extra_pnginfo or {}).get("workflow"), datetime.now())
    if not filename_prefix.strip() or filename_prefix.endswith("/"):
        filename_prefix += DEFAULT_PREFIX
    prefix = Path(filename_prefix)
    if prefix.is_absolute() or ".." in prefix.parts:
        raise ValueError(f"filename_prefix {filename_prefix} leads out of the output folder; use a name, or a folder in it and a name.")
    with explain_writing(prefix):
        return Target(*_host.new_file(filename_prefix, FORMATS[format].suffix, save, width, height), save)


class CombineVideo(io.ComfyNode):
    """Frames to one file, with sound and the workflow inside."""

    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="AnimateDiffTurbo_CombineVideo",
            display_name="Combine Video",
            category=CATEGORY,
            description="Writes frames as mp4, webm or animated webp, plays them in the node and keeps the workflow in the file: drop it on the canvas.",
            search_aliases=["animatediff", "video combine", "save video", "vhs", "gif", "mp4", "webm", "webp", "images to video"],
            inputs=[io.Image.Input("images", tooltip="The frames, from VAE Decode."), *file_inputs()],
            outputs=file_outputs(),
            is_output_node=True,
        )

    @classmethod
    def execute(cls, images, fps, format, quality, pingpong, loop_count, filename_prefix, save, audio=None) -> io.NodeOutput:
        place = target(filename_prefix, format, save, width=images.shape[2], height=images.shape[1], hidden=cls.hidden)
        bar = _host.Progress(played(len(images), pingpong, 0 if format == "webp" else loop_count))
        written = encode(images, place.path, fps, format, quality, pingpong, loop_count, audio, _host.metadata(cls.hidden), watch=bar)
        if format == "webp":  # PyAV can't read it back
            frames = images[..., :3].expand(-1, -1, -1, 3)
            frames = torch.stack(list(play_order(frames, True, 0))) if pingpong else frames
            video = InputImpl.VideoFromComponents(Types.VideoComponents(images=frames, frame_rate=written.fps))
        else:
            video = InputImpl.VideoFromFile(str(written.path))
        return io.NodeOutput(video, str(written.path), ui=place.preview)
