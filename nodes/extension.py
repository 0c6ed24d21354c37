"""The list of the pack's nodes."""

from comfy_api.latest import ComfyExtension, io

from . import _host
from .animate import ApplyMotionAdapter
from .load import LoadMotionAdapter, LoadMotionLora
from .remote import FalTextToVideo, FalVideoToVideo, TextToVideo
from .sample import EmptyVideoLatent, TurboSampler, TurboSchedule
from .tail import DecodeAndCombine
from .tiny import LoadTinyTurbo
from .travel import PromptTravel
from .video import CombineVideo, LoadVideoFrames


class AnimateDiffTurbo(ComfyExtension):
    """What ComfyUI asks for nodes."""

    async def on_load(self) -> None:
        """Before any schema is read: the loaders' lists of files need their folders."""
        _host.register_folders()

    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        """Every node of the pack."""
        return [
            LoadMotionAdapter, LoadMotionLora, ApplyMotionAdapter, EmptyVideoLatent, TurboSampler, TurboSchedule, CombineVideo, DecodeAndCombine, LoadVideoFrames,
            PromptTravel, LoadTinyTurbo, TextToVideo, FalTextToVideo, FalVideoToVideo,
        ]  # fmt: skip
