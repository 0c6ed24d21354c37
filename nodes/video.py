"""Combine Video."""

from pathlib import Path

import torch
from comfy_api.latest import InputImpl, Types, io, ui

from .. import schema
from ..video.encode import DEFAULT_QUALITY, FORMATS, encode
from ..video.errors import explain_writing
from ..video.pictures import play_order
from . import _host
from .types import CATEGORY

MAX_COPIES = 100


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
            inputs=[
                io.Image.Input("images", tooltip="The frames, from VAE Decode."),
                io.Float.Input(
                    "fps",
                    default=schema.FPS.default,
                    min=0.01,
                    max=240.0,
                    step=0.01,
                    tooltip="Frames shown per second, up to 240 (webp: 90). Adapters are trained at 8.",
                ),
                io.Combo.Input("format", options=list(FORMATS), default="mp4", tooltip="mp4 (H.264) plays everywhere; webm (VP9); webp is an animated picture."),
                io.Int.Input(
                    "quality", default=DEFAULT_QUALITY, min=0, max=100, tooltip="0 is the smallest file, 100 the best picture (lossless for webp)."
                ),
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
                io.String.Input("filename_prefix", default="AnimateDiffTurbo", display_name="filename prefix", tooltip="Start of the file's name; a / makes a folder."),
                io.Boolean.Input(
                    "save",
                    default=True,
                    label_on="save",
                    label_off="preview only",
                    tooltip="Save to the output folder, or write to the temp folder, which ComfyUI empties when it starts.",
                ),
                io.Audio.Input("audio", optional=True, tooltip="Sound for mp4 and webm, cut at the end of the clip."),
            ],
            outputs=[
                io.Video.Output("video", tooltip="The clip, for Save Video and other video nodes."),
                io.String.Output("file", tooltip="Full path of the written file."),
            ],
            is_output_node=True,
        )

    @classmethod
    def execute(cls, images, fps, format, quality, pingpong, loop_count, filename_prefix, save, audio=None) -> io.NodeOutput:
        prefix = Path(filename_prefix)
        if prefix.is_absolute() or ".." in prefix.parts:
            raise ValueError(f"filename_prefix {filename_prefix} leads out of the output folder; use a name, or a folder in it and a name.")
        with explain_writing(prefix):
            path, subfolder = _host.new_file(filename_prefix, FORMATS[format].suffix, save, width=images.shape[2], height=images.shape[1])
        written = encode(images, path, fps, format, quality, pingpong, loop_count, audio, _host.metadata(cls.hidden))
        if format == "webp":  # PyAV can't read it back
            frames = torch.stack(list(play_order(images, True, 0))) if pingpong else images
            video = InputImpl.VideoFromComponents(Types.VideoComponents(images=frames, frame_rate=written.fps))
        else:
            video = InputImpl.VideoFromFile(str(written.path))
        shown = ui.SavedResult(path.name, subfolder, io.FolderType.output if save else io.FolderType.temp)
        return io.NodeOutput(video, str(written.path), ui=ui.PreviewVideo([shown]))
