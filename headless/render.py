"""Many clips from one loaded stack: load, render, write."""

import contextlib
import hashlib
import itertools
import json
import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from types import MappingProxyType

import diffusers
import torch
import transformers
from tqdm import tqdm

from .. import schema
from ..motion_modules import checkpoint, schedule
from ..motion_modules.config import ADAPTERS, AUTO, Adapter, check, identify
from ..video.encode import FORMATS, encode
from ..video.pictures import check_finite, extremes, to_bytes
from ..weights import TINY_MOTION
from . import base
from .pipeline import Request, TextToVideo
from .source import Source

logger = logging.getLogger(__name__)

KINDS: Mapping[object, tuple[type, ...]] = MappingProxyType({str: (str,), int: (int,), float: (float, int), float | None: (float, int)})
"""What JSON may give for a field of `Request` of each type."""

DTYPES: Mapping[str, torch.dtype] = MappingProxyType({"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16})


@dataclass(frozen=True)
class Models:
    """Which files are loaded, and where they compute.

    checkpoint, config, loras, download: see `base.load`. adapter: a motion adapter's file. family: a key of ADAPTERS or "auto".
    device: "auto", "cpu", "cuda", "cuda:1", "mps". dtype: "auto" or a key of DTYPES.
    """

    checkpoint: Path | None = None
    config: Path | None = None
    adapter: Path | None = None
    family: str = AUTO
    loras: tuple[base.Lora, ...] = ()
    device: str = "auto"
    dtype: str = "auto"
    download: bool = False


@dataclass(frozen=True)
class Job:
    """One clip to render into one file. fps: frames per second. quality: see `video.encode`. video: it starts from. place: where it was asked for, for errors."""

    request: Request
    path: Path
    fps: float = schema.FPS.default
    quality: int = 80
    video: Source | None = None
    place: str = ""


def load(models: Models) -> TextToVideo:
    """The stack; the tiny one when no file is named.

    Raises ValueError or CheckpointError with one sentence.
    """
    if (models.checkpoint is None) != (models.adapter is None):
        missing, given = ("--checkpoint", "--adapter") if models.checkpoint is None else ("--adapter", "--checkpoint")
        raise ValueError(f"{given} without {missing}: the tiny model and full-sized files do not fit each other; give both, or neither for the tiny model.")
    diffusers.utils.logging.set_verbosity_error()
    diffusers.utils.logging.disable_progress_bar()
    transformers.utils.logging.disable_progress_bar()
    device = working_device(models.device)
    dtype = DTYPES[models.dtype] if models.dtype != "auto" else torch.float32 if device == "cpu" else torch.float16
    file = checkpoint.load(models.adapter or TINY_MOTION)
    adapter = _row(file, models.family)
    loaded = base.load(models.checkpoint, models.config, models.loras, device, dtype, models.download)
    widths = tuple(loaded.unet.config.block_out_channels)
    if widths != file.layout.widths:
        raise ValueError(f"{file.path.name} is made for a UNet of widths {file.layout.widths}, but the checkpoint has {widths}; use an adapter for this model.")
    motion = file.build(dtype=dtype).to(device)
    return TextToVideo(loaded, motion, adapter, file.positions or adapter.max_frames)


def working_device(name: str) -> str:
    """name, or the best device for "auto"; raises ValueError when it does not work here."""
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        torch.zeros(1, device=name).item()
    except (RuntimeError, AssertionError) as error:  # the second where torch was built without CUDA
        reason = str(error).strip().partition("\n")[0].rstrip(".")
        raise ValueError(f"--device {name} does not work here ({reason}); use cpu, cuda, cuda:1 or mps, or leave it out for the best there is.") from error
    return name


def _row(file: checkpoint.Checkpoint, family: str) -> Adapter:
    if family != AUTO:
        return check(file.path.name, ADAPTERS[family], file.layout)
    row, reason = identify(file.path.name, file.layout, file.positions)
    logger.info("%s: %s.", file.path.name, reason)
    if row.warning:
        logger.warning("%s", row.warning)
    return row


def requests(path: Path, common: Request) -> dict[int, Request]:
    """The clips that a JSON Lines file asks for by the number of their line, each an object with "prompt" and any other field of `Request`.

    A line without a seed gets common's plus the number of lines above it.

    Raises:
        ValueError: the file can't be read or is empty, or a line is not such an object; it is named, and nothing was rendered.
    """
    kinds = {each.name: KINDS[each.type] for each in fields(Request)}
    return {number: replace(common, **({"seed": common.seed + number - 1} | values)) for number, values in schema.lines(path, kinds).items()}


def jobs(asked: Mapping[int, Request], models: Models, folder: Path, template: Job, suffix: str) -> list[Job]:
    """One job for each request; its file is named by its line, and by request and models: the same list is not rendered twice, a changed one is."""
    result = []
    made_with = {name: str(value) for name, value in asdict(models).items() if name not in ("device", "download")}
    for number, request in asked.items():
        video = template.video and template.video.digest
        settings = json.dumps([asdict(request), template.fps, template.quality, made_with, video], sort_keys=True)
        digest = hashlib.sha256(settings.encode()).hexdigest()[:8]
        result.append(replace(template, request=request, path=folder / f"{number:04}-{digest}{suffix}", place=f"line {number}: "))
    return result


def render(stack: TextToVideo, job: Job, quiet: bool = False) -> Path:
    """Renders one clip and returns the path of its file, which is written while the clip is decoded."""
    facts = {"animatediff_turbo": asdict(job.request) | {"adapter": stack.adapter.name}}
    format = job.path.suffix.removeprefix(".").lower()
    audio = job.video.audio if job.video and FORMATS[format].audio_codec else None
    with tqdm(total=len(schedule.timesteps(stack.adapter, job.request.num_inference_steps, job.request.strength)), desc=job.path.name, unit="step", disable=quiet or None) as bar:
        try:
            parts = stack.parts(job.request, _advance(bar), job.video and job.video.fitted(job.request.width, job.request.height))
            with contextlib.closing(_frames(parts, job.path)) as frames:
                first = next(frames)  # a file is begun when there is something to write
                return encode(itertools.chain([first], frames), job.path, job.fps, format, job.quality, audio=audio, metadata=facts).path
        except torch.cuda.OutOfMemoryError as error:
            raise ValueError(f"{job.place}the device is out of memory; use a smaller size or fewer frames.") from error


def _frames(parts: Iterator[torch.Tensor], path: Path) -> Iterator[torch.Tensor]:
    """8-bit ones, made on the device."""
    first = 0
    for part in parts:
        check_finite(extremes(part).cpu(), first, path)
        yield from to_bytes(part).cpu()
        first += len(part)


def _advance(bar: tqdm) -> Callable[[int, int], None]:
    def advance(done: int, total: int) -> None:
        bar.total = total
        bar.update(done - bar.n)

    return advance
