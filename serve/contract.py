"""The two endpoints: what goes in and what comes out, as fal documents it, and what this server asks for besides.

Numbers come from `schema`; the words are those of https://fal.ai/models/fal-ai/fast-animatediff/turbo/text-to-video/api.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from types import MappingProxyType
from typing import Annotated

from pydantic import BaseModel, BeforeValidator, Field
from pydantic_core import PydanticCustomError

from .. import schema
from ..fal.request import MAX_TEXT, TEXT_TO_VIDEO, VIDEO_TO_VIDEO

APP = "/".join(TEXT_TO_VIDEO.split("/")[:2])
"""Owner and app, under which the queue keeps the requests of both."""
EXAMPLES = [
    (
        "masterpiece, best quality, 1girl, solo, cherry blossoms, hanami, pink flower, white flower, spring season, wisteria, petals, flower, plum blossoms, "
        "outdoors, falling petals, white hair, black eyes"
    ),
    "panda playing a guitar, on a boat, in the ocean, high quality, high quality, ultra HD, realistic",
]
STEPS = "The number of inference steps to perform. 4-12 is recommended for turbo mode."


def _plain(value: object) -> object:
    """Neither truth nor text is a number, which pydantic would allow."""
    if isinstance(value, (bool, str)):
        raise PydanticCustomError("number_type", "Input should be a valid number")
    return value


Whole = Annotated[int, BeforeValidator(_plain)]
Decimal = Annotated[float, BeforeValidator(_plain)]


def _number(row: schema.Number, description: str, **more: int) -> object:
    return Field(default=row.default, ge=row.minimum, le=row.maximum, description=description, **more)


class ImageSize(BaseModel):
    """Width and height of one's own."""

    width: Whole = _number(schema.SIDE, "The width of the generated video, in pixels.", multiple_of=8)
    height: Whole = _number(schema.SIDE, "The height of the generated video, in pixels.", multiple_of=8)


VideoSize = Enum("VideoSize", {name: name for name in schema.VIDEO_SIZES}, type=str)
"""fal's presets."""


class Body(BaseModel):
    """What both take."""

    prompt: str = Field(
        description="The prompt to use for generating the video. Be as descriptive as possible for best results.", examples=EXAMPLES, max_length=MAX_TEXT
    )
    negative_prompt: str = Field(
        default=schema.NEGATIVE_PROMPT,
        max_length=MAX_TEXT,
        description="The negative prompt to use. Use it to address details that you don't want\nin the image. This could be colors, objects, scenery and "
        "even the small details\n(e.g. moustache, blurry, low resolution).",
    )
    guidance_scale: Decimal = Field(
        default=schema.GUIDANCE_SCALE.default, ge=schema.GUIDANCE_SCALE.minimum, le=schema.GUIDANCE_SCALE.maximum, allow_inf_nan=False,
        description="The CFG (Classifier Free Guidance) scale is a measure of how close you want the model to stick to your prompt when looking for a "
        "related image to show you.",
    )  # fmt: skip
    seed: Annotated[int, Field(ge=schema.SEED.minimum, le=schema.SEED.maximum), BeforeValidator(_plain)] | None = Field(
        default=None,
        description="The same seed and the same prompt given to the same version of Stable Diffusion\nwill output the same image every time.",
    )
    fps: Whole = _number(schema.FPS, "Number of frames per second to extract from the video.")


class FastAnimatediffTurboTextToVideoInput(Body):
    """A clip from a prompt."""

    num_frames: Whole = _number(schema.NUM_FRAMES, "The number of frames to generate for the video.")
    num_inference_steps: Whole = _number(schema.NUM_INFERENCE_STEPS, STEPS)
    video_size: ImageSize | VideoSize = Field(default=schema.DEFAULT_SIZE, description="The size of the video to generate.")


class FastAnimatediffTurboVideoToVideoInput(Body):
    """A video in another look."""

    video_url: str = Field(description="URL of the video: one that was uploaded to this server, or any public https address.", max_length=2048, pattern="^https?://")
    first_n_seconds: Whole = _number(schema.FIRST_N_SECONDS, "The first N number of seconds of video to animate.")
    num_inference_steps: Whole = _number(schema.VIDEO_INFERENCE_STEPS, STEPS)
    strength: Decimal = _number(schema.STRENGTH, "The strength of the input video in the final output.")


class File(BaseModel):
    """A file and where it is."""

    url: str = Field(description="The URL where the file can be downloaded from.")
    content_type: str | None = Field(default=None, description="The mime type of the file.")
    file_name: str | None = Field(default=None, description="The name of the file.")
    file_size: int | None = Field(default=None, description="The size of the file in bytes.")


class FastAnimatediffTurboOutput(BaseModel):
    """A finished clip."""

    video: File = Field(description="Generated video file.")
    seed: int = Field(description="Seed used for generating the video.")


class QueueStatus(BaseModel):
    """Where a request stands."""

    status: str = Field(description="IN_QUEUE, IN_PROGRESS or COMPLETED.")
    request_id: str
    response_url: str
    status_url: str
    cancel_url: str
    queue_position: int | None = None
    logs: list[dict[str, str]] | None = None
    metrics: dict[str, float] | None = None
    error: str | None = None
    error_type: str | None = None


class Cancelled(BaseModel):
    """The answer to a cancel: CANCELLATION_REQUESTED, ALREADY_COMPLETED or NOT_FOUND."""

    status: str


class UploadAddresses(BaseModel):
    """Where to put a file, and where it will be found."""

    upload_url: str
    file_url: str


class Refusal(BaseModel):
    """Why there is no answer: a sentence, or a list of faulty fields."""

    detail: str | list[dict[str, object]]
    error_type: str | None = None


INPUTS: Mapping[str, type[Body]] = MappingProxyType(
    {TEXT_TO_VIDEO: FastAnimatediffTurboTextToVideoInput, VIDEO_TO_VIDEO: FastAnimatediffTurboVideoToVideoInput}
)
"""The input of every endpoint."""


@dataclass(frozen=True)
class Fault:
    """A field whose value this server does not take: fal's shape of one."""

    field: str
    message: str
    type: str

    def detail(self) -> list[dict[str, object]]:
        """As the list in an answer 422."""
        return [{"loc": ["body", self.field] if self.field else ["body"], "msg": self.message, "type": self.type}]


def arguments(body: Body) -> dict[str, object]:
    """What was given, as JSON holds it: the rest is the served model's own. A seed of null is none."""
    return {name: value for name, value in body.model_dump(mode="json", exclude_unset=True).items() if value is not None}


def work(endpoint: str, given: Mapping[str, object]) -> int:
    """Pixels x frames x steps of a request; what is not given counts as fal's default."""
    inputs = INPUTS[endpoint].model_construct(**given)
    if endpoint == VIDEO_TO_VIDEO:
        frames = min(inputs.first_n_seconds * inputs.fps, schema.NUM_FRAMES.maximum)
        return math.prod((*schema.VIDEO_SIZES[schema.DEFAULT_SIZE], int(frames), int(inputs.num_inference_steps)))
    size = inputs.video_size
    side = int(schema.SIDE.default)
    sides = (size.get("width", side), size.get("height", side)) if isinstance(size, dict) else schema.VIDEO_SIZES[size]
    return math.prod((*sides, int(inputs.num_frames), int(inputs.num_inference_steps)))
