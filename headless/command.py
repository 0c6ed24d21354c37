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
from .base import Lora
from .pipeline import Request
from .render import Job, Models, jobs, load, render, requests

logger = logging.getLogger(__name__)

FOLDER_SUFFIX = ".mp4"
ERRORS = (ValueError, OSError, VideoError)  # what `run` raises on purpose: one sentence each


def run(options: argparse.Namespace) -> Iterator[Path]:
    """Renders what options ask for and gives each file's path when it is complete.

    Raises one of ERRORS with one sentence (a CheckpointError is a ValueError); files that are complete stay.
    """
    _check_output(options)
    asked = requests(options.prompts, Request("")) if options.prompts else {}  # a bad list is found before a model is loaded
    models = _models(options)
    stack = load(models)
    listed = jobs_of(options, models, stack.adapter)
    for job in listed:
        try:
            stack.check(job.request)
        except ValueError as error:
            raise ValueError(f"{job.source}{error}") from error
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


def jobs_of(options: argparse.Namespace, models: Models, adapter: Adapter) -> list[Job]:
    """What options ask for of models, with adapter's own size where they name none."""
    width, height = (adapter.side, adapter.side) if options.video_size is None else schema.VIDEO_SIZES[options.video_size]
    common = Request(
        options.prompt or "", options.negative_prompt, width if options.width is None else options.width,
        height if options.height is None else options.height, options.num_frames,
        options.num_inference_steps, options.guidance_scale, 0 if options.seed is None else options.seed,
    )  # fmt: skip
    template = Job(common, options.output, options.fps, options.quality)
    if options.prompts:
        return jobs(requests(options.prompts, common), models, options.output, template, FOLDER_SUFFIX)
    seed = secrets.randbelow(2**32) if options.seed is None else options.seed
    return [replace(template, request=replace(common, seed=seed))]
