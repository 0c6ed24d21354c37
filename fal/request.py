"""One request: what is sent, and by what it is known again."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from .. import schema
from .config import Config
from .errors import NotSentError

TEXT_TO_VIDEO = "fal-ai/fast-animatediff/turbo/text-to-video"
VIDEO_TO_VIDEO = "fal-ai/fast-animatediff/turbo/video-to-video"
MAX_TEXT = 10_000
MAX_UPLOAD = 64 * 10**6


@dataclass(frozen=True)
class Upload:
    """A file that a request needs at a public address: its content, its type such as video/mp4, and the ending of its name."""

    content: bytes = field(repr=False)
    content_type: str
    suffix: str

    @property
    def digest(self) -> str:
        """By which it is known again; addresses change with every upload."""
        return f"sha256:{hashlib.sha256(self.content).hexdigest()}"


@dataclass(frozen=True)
class FalRequest:
    """endpoint: the model's id. arguments: the JSON body, every field given, but for uploads: files by the fields that name their addresses."""

    endpoint: str
    arguments: Mapping[str, object] = field(hash=False)
    uploads: Mapping[str, Upload] = field(default_factory=lambda: MappingProxyType({}), hash=False)

    @property
    def app(self) -> str:
        """Owner and app, under which fal.ai keeps the endpoint's requests."""
        return "/".join(self.endpoint.split("/")[:2])

    def body(self, addresses: Mapping[str, str]) -> str:
        """Canonical JSON, with the address of every upload."""
        return json.dumps(dict(self.arguments) | dict(addresses), sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)

    def key(self, config: Config) -> str:
        """By which the journal knows this request to this server again, 64 hex digits."""
        body = self.body({name: upload.digest for name, upload in self.uploads.items()})
        return hashlib.sha256("\0".join(("adt-fal-v1", str(config.queue.origin()), self.endpoint, body)).encode()).hexdigest()


def text_to_video(
    prompt: str, negative_prompt: str, num_frames: int, num_inference_steps: int, guidance_scale: float, seed: int, fps: int, video_size: str,
    width: int, height: int,
) -> FalRequest:
    """A request to turbo/text-to-video; names, ranges and defaults are the endpoint's.

    Raises NotSentError when a value is out of range.
    """
    arguments = _common(prompt, negative_prompt, num_inference_steps, guidance_scale, seed, fps)
    _within("num_frames", num_frames, schema.NUM_FRAMES)
    size: object = video_size
    if video_size == schema.CUSTOM_SIZE:
        for name, side in (("width", width), ("height", height)):
            _within(name, side, schema.SIDE)
        size = {"width": int(width), "height": int(height)}
    elif video_size not in schema.VIDEO_SIZES:
        raise NotSentError("X", f"video_size is {video_size!r}; use {schema.CUSTOM_SIZE} or one of {', '.join(schema.VIDEO_SIZES)}. Nothing was sent.")
    return FalRequest(TEXT_TO_VIDEO, MappingProxyType(arguments | {"num_frames": int(num_frames), "video_size": size}))


def video_to_video(
    prompt: str, negative_prompt: str, num_inference_steps: int, guidance_scale: float, seed: int, fps: int, first_n_seconds: int, strength: float,
    video: Upload,
) -> FalRequest:
    """A request to turbo/video-to-video; names, ranges and defaults are the endpoint's.

    Raises NotSentError when a value is out of range.
    """
    arguments = _common(prompt, negative_prompt, num_inference_steps, guidance_scale, seed, fps)
    _within("first_n_seconds", first_n_seconds, schema.FIRST_N_SECONDS)
    _within("strength", strength, schema.STRENGTH)
    if not 0 < len(video.content) <= MAX_UPLOAD:
        raise NotSentError("X", f"The video has {len(video.content) / 1e6:.0f} MB; give a file of up to {MAX_UPLOAD // 10**6} MB. Nothing was sent.")
    arguments |= {"first_n_seconds": int(first_n_seconds), "strength": round(float(strength), 4)}
    return FalRequest(VIDEO_TO_VIDEO, MappingProxyType(arguments), MappingProxyType({"video_url": video}))


def _common(prompt: str, negative_prompt: str, steps: int, guidance: float, seed: int, fps: int) -> dict[str, object]:
    if not prompt.strip():
        raise NotSentError("X", "The prompt is empty; say what the clip should show. Nothing was sent.")
    for name, text in (("prompt", prompt), ("negative_prompt", negative_prompt)):
        if len(text) > MAX_TEXT:
            raise NotSentError("X", f"{name} has {len(text)} characters; use up to {MAX_TEXT}. Nothing was sent.")
        if any("\ud800" <= letter <= "\udfff" for letter in text):
            raise NotSentError("X", f"{name} holds half a letter (a lone surrogate); write it anew. Nothing was sent.")
    _within("num_inference_steps", steps, schema.NUM_INFERENCE_STEPS)
    _within("guidance_scale", guidance, schema.GUIDANCE_SCALE)
    _within("seed", seed, schema.SEED)
    _within("fps", fps, schema.FPS)
    return {
        "prompt": prompt, "negative_prompt": negative_prompt, "num_inference_steps": int(steps), "guidance_scale": round(float(guidance), 4),
        "seed": int(seed), "fps": int(fps),
    }  # fmt: skip


def _within(name: str, value: float, number: schema.Number) -> None:
    got = str(value)[:40] if isinstance(value, int) else f"{value:.10g}"
    if not number.minimum <= value <= number.maximum:  # nan is not
        raise NotSentError("X", f"{name} must be {number.minimum:g}-{number.maximum:.10g} (got {got}). Nothing was sent.")
    if isinstance(number.minimum, int) and value != int(value):
        raise NotSentError("X", f"{name} must be a whole number (got {got}). Nothing was sent.")
