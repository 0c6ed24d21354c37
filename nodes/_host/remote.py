"""What the remote nodes need of ComfyUI: a private folder, the interrupt, progress."""

import asyncio
import threading
from collections.abc import Coroutine
from io import BytesIO
from pathlib import Path

import comfy.model_management
import comfy.utils
import folder_paths
import torch
from comfy.cli_args import args
from comfy_api.latest import InputImpl
from comfy_execution.graph_utils import GraphBuilder
from comfy_execution.utils import get_executing_context

from ...fal import config
from ...fal.errors import Interrupted, MediaError, NotSentError
from ...fal.fanout import Fanouts
from ...fal.job import Found, Options, Runner
from ...fal.request import FalRequest
from ...fal.watch import Progress
from ...video.decode import decode
from ...video.errors import VideoError
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
    context = get_executing_context()
    settings, fanout, abandoned = fal_config(), FANOUTS.of(context.prompt_id if context else ""), threading.Event()

    def interrupted() -> bool:
        # whoever sees ComfyUI's flag first takes it down: the other jobs of this run must hear of it too
        if comfy.model_management.processing_interrupted():
            fanout.stopped.set()
        return fanout.stopped.is_set() or abandoned.is_set()

    runner = Runner(settings, lambda: config.key(settings), lambda: fanout.start(settings), interrupted, _Reporter())
    try:
        async with fanout.turn:
            return await _in_a_loop_of_its_own(runner.run(request, options), abandoned)
    except (Interrupted, comfy.model_management.InterruptProcessingException):
        fanout.stopped.set()
        comfy.model_management.throw_exception_if_processing_interrupted()
        raise comfy.model_management.InterruptProcessingException from None


async def _in_a_loop_of_its_own(work: Coroutine[object, object, Found], abandoned: threading.Event) -> Found:
    """What work gives, in a thread; when another node has failed, ComfyUI cancels every task of its own loop, and a paid request among them would be lost.

    The thread ends with the program, which must not wait for fal.ai; the next run collects the job.
    """
    loop = asyncio.new_event_loop()

    def serve() -> None:
        loop.run_forever()
        loop.close()

    threading.Thread(target=serve, daemon=True).start()
    done = asyncio.wrap_future(asyncio.run_coroutine_threadsafe(work, loop))  # in this context, by which progress finds its node
    try:
        await asyncio.wait({done})
    except asyncio.CancelledError:
        abandoned.set()
        await asyncio.wait({done})
        done.exception()  # seen, as the run ends with another
        raise
    finally:
        loop.call_soon_threadsafe(loop.stop)
    return done.result()


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


async def opened(found: Found) -> tuple[torch.Tensor, object]:
    """The frames of a video and the VIDEO that they come from, which needs the file no more. Raises FalError when it cannot be decoded."""
    try:
        clip = await asyncio.to_thread(decode, found.path)
    except VideoError as error:
        raise MediaError("D5", f"The video cannot be decoded. {error}", found.request_id) from None
    return clip.frames, InputImpl.VideoFromFile(BytesIO(found.path.read_bytes()))
