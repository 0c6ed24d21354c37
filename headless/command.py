"""The command line's arguments, once parsed, to models and jobs."""

import argparse
import logging
import secrets
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from .. import schema
from ..motion_modules.config import ADAPTERS, AUTO, Adapter
from ..video import encode
from ..video.encode import FORMATS
from ..video.errors import VideoError
from . import source
from .base import Lora
from .pipeline import Request
from .render import Job, Models, jobs, load, render, requests
from .source import Source

logger = logging.getLogger(__name__)

FOLDER_SUFFIX = ".mp4"
ERRORS = (ValueError, OSError, VideoError)  # what `run` raises on purpose: one sentence each


def run(options: argparse.Namespace) -> Iterator[Path]:
    """Renders what options ask for and gives each file's path when it is complete.

    Raises one of ERRORS with one sentence (a CheckpointError is a ValueError); files that are complete stay.
    """
    _check_output(options)
    video = _video(options)  # a bad one is found before a model is loaded
    asked = requests(options.prompts, Request("")) if options.prompts else {}  # and a bad list
    models = _models(options)
    stack = load(models)
    listed = jobs_of(options, models, stack.adapter, video)
    for job in listed:
        try:
            stack.check(job.request, video and video.shape(job.request.width, job.request.height))
        except ValueError as error:
            raise ValueError(f"{job.place}{error}") from error
    if asked:
        options.output.mkdir(parents=True, exist_ok=True)
    for number, job in enumerate(listed):
        if options.prompts and job.path.exists():
            logger.info("%s is there already.", job.path)
            continue
        logger.info("%d of %d: seed %d.", number + 1, len(listed), job.request.seed)
        yield render(stack, job, options.quiet)


def _check_output(options: argparse.Namespace) -> None:
    """Before anything slow: the files can be written."""
    if options.family not in (AUTO, *ADAPTERS):
        raise ValueError(f"--family is {options.family!r}; use {AUTO} or one of: {', '.join(ADAPTERS)}.")
    options.output = options.output or Path(options.prompts.stem if options.prompts else "out.mp4")
    example = options.output / f"clip{FOLDER_SUFFIX}" if options.prompts else options.output
    formats = {row.suffix: name for name, row in FORMATS.items()}
    if example.suffix.lower() not in formats:
        raise ValueError(f"{options.output} does not end in {', '.join(formats)}; the ending chooses the format.")
    encode.check(example, options.fps, formats[example.suffix.lower()], options.quality)
    if not options.prompts and not options.output.absolute().parent.is_dir():
        raise ValueError(f"There is no folder {options.output.absolute().parent}; make it first.")


def _video(options: argparse.Namespace) -> Source | None:
    """The part of --video that is asked for, None without one."""
    if options.video is not None:
        seconds = schema.FIRST_N_SECONDS.default if options.first_n_seconds is None else options.first_n_seconds
        return source.read(options.video, options.fps, options.skip_seconds or 0.0, seconds, options.num_frames or 0)
    for name in ("strength", "first_n_seconds", "skip_seconds"):
        if getattr(options, name) is not None:
            raise ValueError(f"--{name.replace('_', '-')} is for a video that the clip starts from; give one with --video.")
    return None


def _models(options: argparse.Namespace) -> Models:
    loras = tuple(_lora(text) for text in options.lora)
    names = ("checkpoint", "config", "adapter", "family", "device", "dtype", "download")
    return Models(loras=loras, **{name: getattr(options, name) for name in names})


def _lora(text: str) -> Lora:
    """FILE or FILE:STRENGTH; a drive letter is no strength."""
    path, colon, strength = text.rpartition(":")
    try:
        return Lora(Path(path), float(strength)) if colon else Lora(Path(text))
    except ValueError:
        return Lora(Path(text))


def jobs_of(options: argparse.Namespace, models: Models, adapter: Adapter, video: Source | None = None) -> list[Job]:
    """What options ask for of models: where they name no size, of adapter's own, in the shape of the video where there is one."""
    common = replace(
        _size_and_length(options, adapter, video),
        prompt=options.prompt or "", negative_prompt=options.negative_prompt, num_inference_steps=options.num_inference_steps,
        guidance_scale=options.guidance_scale, seed=0 if options.seed is None else options.seed,
    )  # fmt: skip
    template = Job(common, options.output, options.fps, options.quality, video)
    if options.prompts:
        return jobs(requests(options.prompts, common), models, options.output, template, FOLDER_SUFFIX)
    seed = secrets.randbelow(2**32) if options.seed is None else options.seed
    return [replace(template, request=replace(common, seed=seed))]


def _size_and_length(options: argparse.Namespace, adapter: Adapter, video: Source | None) -> Request:
    width, height = schema.VIDEO_SIZES.get(options.video_size, (None, None))
    width, height = width if options.width is None else options.width, height if options.height is None else options.height
    if video is not None:
        width, height = video.size(adapter.side, width, height)
        strength = schema.STRENGTH.default if options.strength is None else options.strength
        return Request("", width=width, height=height, num_frames=len(video.frames), strength=strength)
    frames = int(schema.NUM_FRAMES.default) if options.num_frames is None else options.num_frames
    return Request("", width=adapter.side if width is None else width, height=adapter.side if height is None else height, num_frames=frames)
