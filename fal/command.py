"""The command line's --remote: arguments, once parsed, to requests and files."""

import argparse
import asyncio
import logging
import re
import secrets
import shutil
import signal
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from .. import schema
from ..video.decode import decode
from ..video.errors import VideoError
from . import config
from .errors import FalError, Interrupted
from .fanout import Fanout
from .job import Options, Runner
from .request import FalRequest, Upload, text_to_video, video_to_video
from .upload import from_frames
from .watch import Progress

logger = logging.getLogger(__name__)

ERRORS = (ValueError, OSError, VideoError, FalError)  # what `run` raises on purpose: one sentence each
FOLDER = ".animatediff_turbo"
HERE_ONLY = {"checkpoint": None, "config": None, "adapter": None, "lora": [], "family": "auto", "download": False, "device": "auto", "dtype": "auto", "quality": 80}
"""Options that say how a clip is rendered on this machine, and their defaults."""
KINDS: Mapping[str, tuple[type, ...]] = {
    "prompt": (str,), "negative_prompt": (str,), "num_frames": (int,), "num_inference_steps": (int,), "guidance_scale": (float, int), "seed": (int,),
    "video_size": (str,), "width": (int,), "height": (int,), "strength": (float, int),
}  # fmt: skip


@dataclass(frozen=True)
class _Clip:
    """place: in the list, to be said before what is wrong."""

    request: FalRequest
    path: Path
    place: str = ""


def run(options: argparse.Namespace) -> Iterator[Path]:
    """Renders what options ask for at fal.ai and gives each file's path, when all are over.

    Raises one of ERRORS with one sentence for each clip that failed after the others are done, KeyboardInterrupt when it was stopped and the jobs are cancelled.
    """
    clips = _clips(options)
    if not options.prompts:
        logger.info("Seed %d.", clips[0].request.arguments["seed"])
    settings = config.read(Path.home() / FOLDER)
    stopped = threading.Event()
    before = signal.signal(signal.SIGINT, lambda *_: stopped.set())
    try:
        results = asyncio.run(_all(clips, settings, Options(submit_again=options.if_lost != "stop"), stopped))
    finally:
        signal.signal(signal.SIGINT, before)
    yield from (result for result in results if isinstance(result, Path))
    drawn = f"--seed {clips[0].request.arguments['seed']}" if options.seed is None and not options.prompts else ""
    _raise_failures(clips, results, drawn)


def _raise_failures(clips: list[_Clip], results: list[Path | BaseException], drawn: str) -> None:
    """drawn: the option that asks for the same clip again, where nobody chose its seed."""
    if any(isinstance(result, Interrupted) for result in results):
        again = f" A job that had begun may be finished and billed all the same: add {drawn} to ask for it first." if drawn else ""
        raise KeyboardInterrupt(f"Interrupted; what is finished is kept.{again}")
    sentences = []
    for clip, result in zip(clips, results, strict=True):
        if isinstance(result, ERRORS):
            sentences.append(f"{clip.place}{result}" + (f" To ask for the same clip again add {drawn}." if drawn else ""))
        elif isinstance(result, BaseException):
            raise result
    if sentences:
        raise ValueError("\n".join(sentences))


async def _all(clips: list[_Clip], settings: config.Config, options: Options, stopped: threading.Event) -> list[Path | BaseException]:
    fanout = Fanout()

    async def one(clip: _Clip) -> Path:
        runner = Runner(settings, lambda: config.key(settings), lambda: fanout.start(settings), stopped.is_set, _Reporter(clip.path.name))
        async with fanout.turn:
            found = await runner.run(clip.request, options)
        return Path(shutil.copyfile(found.path, clip.path))

    return await asyncio.gather(*map(one, clips), return_exceptions=True)


class _Reporter:
    """Says what is going on, each kind of thing once."""

    def __init__(self, name: str):
        self.name, self.last = name, ""

    def __call__(self, progress: Progress) -> None:
        kind = re.sub(r", \d+ s|[\d.]+ MB", "", progress.text)
        if kind != self.last:
            self.last = kind
            logger.info("%s: %s.", self.name, progress.text)


def _clips(options: argparse.Namespace) -> list[_Clip]:
    for name, default in HERE_ONLY.items():
        if getattr(options, name) != default:
            raise ValueError(f"--{name} is for clips that are rendered here; leave it out, or --remote.")
    output = options.output or Path(options.prompts.stem if options.prompts else "out.mp4")
    video = _video(options)
    if not options.prompts:
        if output.suffix.lower() != ".mp4":
            raise ValueError(f"{output} does not end in .mp4, which is what fal.ai gives; choose that ending.")
        if not output.absolute().parent.is_dir():
            raise ValueError(f"There is no folder {output.absolute().parent}; make it first.")
        seed = secrets.randbelow(int(schema.SEED.maximum) + 1) if options.seed is None else options.seed
        return [_Clip(_request(options, {"prompt": options.prompt, "seed": seed}, video), output)]
    clips = []
    for number, values in schema.lines(options.prompts, KINDS).items():
        try:
            request = _request(options, {"seed": (options.seed or 0) + number - 1} | values, video)
        except FalError as error:
            raise ValueError(f"line {number}: {error}") from error
        clips.append(_Clip(request, output / f"{number:04}.mp4", f"line {number}: "))
    output.mkdir(parents=True, exist_ok=True)
    return clips


def _video(options: argparse.Namespace) -> Upload | None:
    if options.video is None:
        for name in ("strength", "first_n_seconds", "skip_seconds"):
            if getattr(options, name) is not None:
                raise ValueError(f"--{name.replace('_', '-')} is for a video that the clip starts from; give one with --video.")
        return None
    clip = decode(options.video, 0.0, options.skip_seconds or 0.0, schema.FIRST_N_SECONDS.maximum)
    return from_frames(clip.frames, clip.fps)


def _request(options: argparse.Namespace, values: Mapping[str, object], video: Upload | None) -> FalRequest:
    """Of options, and of values before them."""
    steps = schema.NUM_INFERENCE_STEPS if video is None else schema.VIDEO_INFERENCE_STEPS
    chosen = {
        "negative_prompt": options.negative_prompt, "num_inference_steps": options.num_inference_steps or int(steps.default), "fps": options.fps,
        "guidance_scale": schema.GUIDANCE_SCALE.default if options.guidance_scale is None else options.guidance_scale,
    } | dict(values)  # fmt: skip
    if video is not None:
        seconds = schema.FIRST_N_SECONDS.default if options.first_n_seconds is None else options.first_n_seconds
        strength = schema.STRENGTH.default if options.strength is None else options.strength
        if unfit := chosen.keys() & {"num_frames", "video_size", "width", "height"}:
            raise ValueError(f"{', '.join(sorted(unfit))}: a clip has the length and size of its --video at fal.ai; leave it out.")
        return video_to_video(**{"first_n_seconds": seconds, "strength": strength} | chosen, video=video)
    frames = int(schema.NUM_FRAMES.default) if options.num_frames is None else options.num_frames
    return text_to_video(**{"num_frames": frames} | chosen | _size(options, values))


def _size(options: argparse.Namespace, values: Mapping[str, object]) -> dict[str, object]:
    """video_size, width and height. As for clips that are rendered here a side goes before a preset; what a line says goes before an option."""
    preset = values.get("video_size", options.video_size)
    sides = {name: getattr(options, name) for name in ("width", "height") if getattr(options, name) is not None and "video_size" not in values}
    sides |= {name: values[name] for name in ("width", "height") if name in values}
    known = schema.VIDEO_SIZES.get(preset, (int(schema.SIDE.default),) * 2)
    custom = sides and (preset is None or preset in schema.VIDEO_SIZES)
    return dict(zip(("width", "height"), known, strict=True)) | {"video_size": schema.CUSTOM_SIZE if custom else preset or schema.DEFAULT_SIZE} | sides
