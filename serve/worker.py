"""A worker process: loads the models once, then renders what it is told to, one job after the other.

Its first line of input is its setting, every other an order; its reports go to standard output. All are objects of JSON, one on each line. It ends
when its input does, so that none is left behind when the server is gone.
"""

import json
import logging
import os
import queue
import signal
import sys
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import astuple
from pathlib import Path
from typing import TextIO

import torch

from .. import schema
from ..fal.request import MAX_UPLOAD, VIDEO_TO_VIDEO
from ..headless import base, render, source
from ..headless.pipeline import Request, TextToVideo
from ..video import encode
from ..video.decode import Limits, measure
from ..video.errors import VideoError
from ..video.pictures import check_finite, extremes, to_bytes
from .fetch import FetchError, fetch
from .files import to_disk
from .states import UNWRITABLE

logger = logging.getLogger(__name__)

Message = dict[str, object]
SOURCE = Limits(side=4096, frames=3600, pixels=1920 * 1080 * 3600, sound_seconds=300.0)
"""What a video to start from may hold: a minute of 60 frames per second in 1080p."""
KEPT_PIXELS = 2048 * 2048 * 32
"""Of the frames that are used of it; as float32 RGB they are 1.6 GB."""
QUALITY = 80
"""Of the videos, see `video.encode`."""
OUT_OF_MEMORY = "The device is out of memory; use a smaller size or fewer frames."


class _StoppedError(Exception):
    """The job is not wanted any more."""


class _RefusedError(Exception):
    """The job can't be done as it is asked for."""

    def __init__(self, status: int, detail: object, type: str):
        super().__init__(type)
        self.report = {"say": "failed", "status": status, "detail": detail, "type": type}


def _fault(field: str, sentence: str, type: str = "value_error") -> _RefusedError:
    return _RefusedError(422, [{"loc": ["body", field] if field else ["body"], "msg": sentence, "type": type}], type)


class Inbox:
    """Orders as they come, read by a thread of its own; the process ends with them."""

    def __init__(self, lines: TextIO):
        self.orders: queue.SimpleQueue[Message] = queue.SimpleQueue()
        self._stopped: set[object] = set()
        threading.Thread(target=self._read, args=(lines,), daemon=True).start()

    def _read(self, lines: TextIO) -> None:
        for line in lines:
            order = json.loads(line)
            if order.get("do") == "stop":
                self._stopped.add(order["id"])
            else:
                self.orders.put(order)
        os._exit(0)  # at once: nobody is there to whom a result could go

    def check(self, id: object) -> None:
        """Raises _StoppedError when this job is not wanted any more."""
        if id in self._stopped:
            raise _StoppedError

    def forget(self, id: object) -> None:
        """The job has ended."""
        self._stopped.discard(id)


class Outbox:
    """Reports, each whole and at once."""

    def __init__(self, lines: TextIO):
        self._lines = lines

    def send(self, report: Message) -> None:
        """Writes one."""
        self._lines.write(json.dumps(report) + "\n")
        self._lines.flush()


def main() -> None:
    """Runs until nobody gives orders any more."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches every process of a terminal; the server says when to end
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    outbox = Outbox(os.fdopen(os.dup(1), "w", encoding="utf-8"))
    os.dup2(2, 1)  # whatever a library prints is no report
    inbox = Inbox(sys.stdin)
    setting = inbox.orders.get()
    try:
        stack = render.load(models(setting))
    except (ValueError, OSError) as error:
        outbox.send({"say": "unfit", "reason": str(error)})
        return
    outbox.send({"say": "ready", "adapter": stack.adapter.name, "side": stack.adapter.side, "steps": stack.adapter.steps, "guidance": stack.adapter.guidance})
    while True:
        order = inbox.orders.get()
        outbox.send({"say": "begun", "id": order["id"]})
        outbox.send(report(stack, order, inbox, outbox) | {"id": order["id"]})
        inbox.forget(order["id"])


def models(setting: Message) -> render.Models:
    """The models that a setting names. Raises ValueError for a family that is none."""
    given = dict(setting["models"])
    paths = {name: Path(given[name]) for name in ("checkpoint", "config", "adapter") if given.get(name)}
    loras = tuple(base.Lora(Path(path), strength) for path, strength in given.get("loras", ()))
    if given.get("family", render.AUTO) not in (render.AUTO, *render.ADAPTERS):
        raise ValueError(f"--family is {given['family']!r}; use {render.AUTO} or one of: {', '.join(render.ADAPTERS)}.")
    return render.Models(**given | paths | {"loras": loras, "device": setting["device"]})


def report(stack: TextToVideo, order: Message, inbox: Inbox, outbox: Outbox) -> Message:
    """Renders a job; what is to be reported at its end."""
    path = Path(str(order["path"]))
    try:
        inbox.check(order["id"])
        _render(stack, order, path, inbox, outbox)
        to_disk(path)
        return {"say": "done", "bytes": path.stat().st_size}
    except _StoppedError:
        return {"say": "stopped"}
    except _RefusedError as error:
        return error.report
    except (torch.cuda.OutOfMemoryError, MemoryError):
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        return _RefusedError(500, OUT_OF_MEMORY, "runner_server_error").report
    except RecursionError:
        return _fault("prompt", "The brackets are nested too deep; use fewer.").report
    except ValueError as error:
        return _fault("", str(error)).report
    except (VideoError, OSError) as error:
        logger.warning("A video could not be written (%s).", getattr(error.__cause__ or error, "strerror", None) or type(error).__name__)
        return _RefusedError(*astuple(UNWRITABLE)).report


def _render(stack: TextToVideo, order: Message, path: Path, inbox: Inbox, outbox: Outbox) -> None:
    def advance(step: int, steps: int) -> None:
        inbox.check(order["id"])
        outbox.send({"say": "step", "id": order["id"], "step": step, "steps": steps})

    inputs = dict(order["inputs"])
    video = _video(stack, order, inputs, inbox)
    request = _request(stack, str(order["endpoint"]), inputs, video)
    parts = stack.parts(request, advance, video and video.fitted(request.width, request.height))
    encode.encode(_frames(parts, path, inbox, order["id"]), path, inputs.get("fps", schema.FPS.default), "mp4", QUALITY, audio=video and video.audio)


def _frames(parts: Iterator[torch.Tensor], path: Path, inbox: Inbox, id: object) -> Iterator[torch.Tensor]:
    """8-bit ones, made on the device."""
    number = 0
    for part in parts:
        inbox.check(id)
        try:
            check_finite(extremes(part).cpu(), number, path)
        except VideoError as error:
            raise _RefusedError(500, "The model gave pixels that are no numbers; whoever runs the server may try --dtype fp32 or bf16.", "runner_server_error") from error
        yield from to_bytes(part).cpu()
        number += len(part)


def _video(stack: TextToVideo, order: Message, inputs: Message, inbox: Inbox) -> source.Source | None:
    if order["endpoint"] != VIDEO_TO_VIDEO:
        return None
    if "source" in order:
        return _read(stack, Path(str(order["source"])), inputs)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "video"
        try:
            fetch(str(inputs["video_url"]), path, MAX_UPLOAD, lambda: inbox.check(order["id"]))
        except FetchError as error:
            raise _fault("video_url", str(error), "file_download_error") from error
        return _read(stack, path, inputs)


def _read(stack: TextToVideo, path: Path, inputs: Message) -> source.Source:
    fps, seconds = inputs.get("fps", schema.FPS.default), inputs.get("first_n_seconds", schema.FIRST_N_SECONDS.default)
    try:
        found = measure(path, SOURCE)
        if found.over:
            raise _fault("video_url", f"The video has {found.over}; use a smaller or shorter one.", "video_too_large")
        frames = min(int(seconds * fps), stack.max_frames)
        if found.width * found.height * frames > KEPT_PIXELS:
            raise _fault("video_url", f"The video has {found.width}x{found.height} pixels, too many for {frames} frames; use a smaller one.", "video_too_large")
        return source.read(path, fps, 0.0, seconds, frames)
    except VideoError as error:
        raise _fault("video_url", "This is not a readable video; use an mp4, for example.", "invalid_video") from error


def _request(stack: TextToVideo, endpoint: str, inputs: Message, video: source.Source | None) -> Request:
    """In the pipeline's terms. What was not asked for is the served model's own, which is fal's default where the model is the one that fal serves."""
    adapter = stack.adapter
    steps, size = inputs.get("num_inference_steps", 0), inputs.get("video_size")
    if not steps and video and adapter.steps == schema.NUM_INFERENCE_STEPS.default and adapter.max_steps >= schema.VIDEO_INFERENCE_STEPS.default and not adapter.step_counts:
        steps = int(schema.VIDEO_INFERENCE_STEPS.default)
    if video:
        width, height = video.size(adapter.side, None, None)
    elif isinstance(size, dict):
        width, height = (size.get(name, int(schema.SIDE.default)) for name in ("width", "height"))
    else:
        width, height = schema.VIDEO_SIZES[size] if size else (adapter.side, adapter.side)
    # 0 keeps the video; the pipeline takes the least step that there is instead
    strength = max(inputs.get("strength", schema.STRENGTH.default), 1e-3) if video else 1.0
    return Request(
        inputs["prompt"], inputs.get("negative_prompt", schema.NEGATIVE_PROMPT), width, height,
        len(video.frames) if video else inputs.get("num_frames", int(schema.NUM_FRAMES.default)), steps, inputs.get("guidance_scale"), inputs["seed"], strength,
    )  # fmt: skip


if __name__ == "__main__":
    main()
