"""What the remote nodes need of ComfyUI: a private folder, the interrupt, progress."""

import asyncio
import contextvars
import threading
from collections.abc import Coroutine
from io import BytesIO
from pathlib import Path

import comfy.model_management
import comfy.utils
import folder_paths
from comfy.cli_args import args
from comfy_api.latest import InputImpl
from comfy_execution.graph_utils import GraphBuilder

from ...fal import config
from ...fal.errors import Interrupted, NotSentError
from ...fal.fanout import Fanouts
from ...fal.job import Found, Options, Runner
from ...fal.request import FalRequest
from ...fal.watch import Progress
from .files import tell

__all__ = ["GraphBuilder", "opened", "run_at_fal"]

FANOUTS = Fanouts()


def fal_config() -> config.Config:
    """The settings, with a folder that ComfyUI's web server does not hand out. Raises FalError."""
    return config.read(Path(folder_paths.get_system_user_directory("animatediff_turbo")))


async def run_at_fal(request: FalRequest, options: Options) -> Found:
    """The request's video, with progress under the node and the run's interrupt. Raises FalError, or ComfyUI's own interruption."""
    if args.disable_api_nodes:
        raise NotSentError("O4", "Remote generation is switched off (ComfyUI was started with --disable-api-nodes).")
    settings, fanout, reporter, stopped = fal_config(), FANOUTS.current(), _Reporter(), threading.Event()

    def interrupted() -> bool:
        return stopped.is_set() or comfy.model_management.processing_interrupted()

    runner = Runner(settings, lambda: config.key(settings), lambda: fanout.start(settings), interrupted, reporter)
    try:
        async with fanout.turn:
            return await _in_a_loop_of_its_own(runner.run(request, options), stopped)
    except Interrupted:
        comfy.model_management.throw_exception_if_processing_interrupted()
        raise comfy.model_management.InterruptProcessingException from None


async def _in_a_loop_of_its_own(work: Coroutine[object, object, Found], stopped: threading.Event) -> Found:
    """What work gives, in a thread; when another node has failed, ComfyUI cancels every task of its own loop, and a paid request among them would be lost."""
    context = contextvars.copy_context()  # by which progress finds its node
    running = asyncio.get_running_loop().run_in_executor(None, context.run, asyncio.run, work)
    try:
        await asyncio.wait({running})
    except asyncio.CancelledError:
        stopped.set()
        await asyncio.wait({running})
        raise
    return running.result()


class _Reporter:
    """Progress under the node, each text once; the bar moves with the job's steps."""

    def __init__(self) -> None:
        self.last, self.bar = "", None

    def __call__(self, progress: Progress) -> None:
        if progress.text != self.last:
            self.last = progress.text
            tell(progress.text)
        if progress.steps:
            self.bar = self.bar or comfy.utils.ProgressBar(progress.steps)
            self.bar.update_absolute(progress.step, progress.steps)


async def opened(path: Path) -> tuple[object, object]:
    """A file's frames and the VIDEO that they come from, which needs the file no more."""
    video = InputImpl.VideoFromFile(BytesIO(path.read_bytes()))
    components = await asyncio.to_thread(video.get_components)
    return components.images, video
