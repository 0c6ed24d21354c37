"""Decode and Combine: from latents to a file at once."""

import contextlib
from collections.abc import Iterator
from fractions import Fraction

import torch
from comfy_api.latest import Input, InputImpl, Types, io

from ..video.encode import FORMATS, encode
from ..video.hardware import hardware
from ..video.pictures import play_order
from . import _host
from .types import CATEGORY
from .video import file_inputs, file_outputs, target

SOFTWARE, HARDWARE = "software", "hardware"


class ByteVideo(Input.Video):
    """A VIDEO of 8-bit frames, a quarter of the memory of float ones; they become floats when somebody asks for them."""

    def __init__(self, frames: list[torch.Tensor], fps: Fraction) -> None:
        self._frames, self._fps = frames, fps

    def get_components(self) -> Types.VideoComponents:
        """The frames, (f, h, w, c) float 0 to 1."""
        return Types.VideoComponents(images=torch.stack(self._frames).to(torch.float32).div_(255), frame_rate=self._fps)

    def save_to(self, path, format=Types.VideoContainer.AUTO, codec=Types.VideoCodec.AUTO, metadata=None, **extra_args) -> None:
        """As core's own VIDEO of frames; extra_args are what the ComfyUI that runs has beside (crf, bit_depth ...)."""
        InputImpl.VideoFromComponents(self.get_components()).save_to(path, format=format, codec=codec, metadata=metadata, **extra_args)

    def as_trimmed(self, start_time: float | None = None, duration: float | None = None, strict_duration: bool = False) -> Input.Video | None:
        """As core's own VIDEO of frames."""
        return InputImpl.VideoFromComponents(self.get_components()).as_trimmed(start_time, duration, strict_duration)


def _keeping(frames: Iterator[torch.Tensor], kept: list[torch.Tensor] | None) -> Iterator[torch.Tensor]:
    for frame in frames:
        if kept is not None:
            kept.append(frame)
        yield frame


class DecodeAndCombine(io.ComfyNode):
    """Latents to one file: VAE Decode and Combine Video in one, a few frames at a time.

    The clip is never in memory as floats. pingpong and further copies play frames again, and webp is written at the end: these keep all of them, as 8-bit.
    """

    @classmethod
    def define_schema(cls):
        options = file_inputs()
        encoder = io.Combo.Input(
            "encoder",
            options=[SOFTWARE, HARDWARE],
            default=SOFTWARE,
            advanced=True,
            tooltip="software gives the same file every time. hardware takes an NVIDIA card's H.264 encoder for mp4, where there is one; the file differs.",
        )
        return io.Schema(
            node_id="AnimateDiffTurbo_DecodeAndCombine",
            display_name="Decode and Combine",
            category=CATEGORY,
            description="VAE Decode and Combine Video in one: writes frames while the next ones are decoded. Faster, in a fraction of the memory, with the same pixels.",
            search_aliases=["animatediff", "vae decode", "video combine", "save video", "vhs", "mp4", "webm", "webp", "latent to video"],
            inputs=[
                io.Latent.Input("latent", tooltip="The clip, from Turbo Sampler or another sampler."),
                io.Vae.Input("vae", tooltip="From the checkpoint loader, or another VAE for SD1.5."),
                *options[:-1],
                encoder,
                options[-1],
            ],
            outputs=file_outputs(),
            is_output_node=True,
        )

    @classmethod
    def execute(cls, latent, vae, fps, format, quality, pingpong, loop_count, filename_prefix, save, encoder=SOFTWARE, audio=None) -> io.NodeOutput:
        samples = _host.clip_latents(vae, latent)
        place = target(filename_prefix, format, save, *_host.pixel_size(vae, samples), cls.hidden)
        row = hardware(FORMATS[format]) if encoder == HARDWARE else FORMATS[format]
        kept = [] if format == "webp" else None  # PyAV can't read it back
        with contextlib.closing(_host.decoded(vae, samples, place.path)) as frames:
            described = _host.metadata(cls.hidden)
            written = encode(
                _keeping(frames, kept), place.path, fps, row, quality, pingpong, loop_count, audio, described, watch=lambda done: _host.stop_when_asked()
            )
        video = InputImpl.VideoFromFile(str(written.path)) if kept is None else ByteVideo(list(play_order(kept, pingpong, 0)), written.fps)
        return io.NodeOutput(video, str(written.path), ui=place.preview)
