"""What can go wrong on the way to fal.ai and back, each with a sentence that says whether something was sent or billed."""

import re
from pathlib import Path

PREFIX = "AnimateDiff Turbo (fal.ai): "


class FalError(Exception):
    """One sentence for a person. code: which of the known failures it is. request_id: of the job, where there is one."""

    def __init__(self, code: str, sentence: str, request_id: str = ""):
        super().__init__(f"{PREFIX}{sentence}" + (f" [request {request_id}]" if request_id else ""))
        self.code, self.request_id = code, request_id


class NotSentError(FalError):
    """Nothing was sent, or fal.ai refused it: no job exists."""


class AmbiguousError(FalError):
    """The request left, and no usable answer came: there may be a job, and a bill."""


class JobError(FalError):
    """The job exists no more and there is no video; the same request may be sent again."""


class LostContactError(FalError):
    """The job may still finish; the same request collects it."""


class GoneError(FalError):
    """The job was finished, and fal.ai has deleted what it made or does not give it."""


class MediaError(FalError):
    """The video was generated and could not be had; the same request tries again without a new job."""


class LostMediaError(MediaError):
    """There is no video at the address that fal.ai names."""


class Interrupted(BaseException):
    """The person stopped the run."""


def not_kept(path: Path, error: OSError) -> NotSentError:
    """What to raise when the disk does not take a finished video."""
    return NotSentError("J", f"Cannot write {path} ({error.strerror or type(error).__name__}); the video is kept at fal.ai, run again to fetch it.")


def scrub(text: str, secret: str) -> str:
    """text in one line without secret or either half of it, and without control characters."""
    for part in {secret, *secret.split(":")}:
        if len(part) >= 4:
            text = text.replace(part, "***")
    return one_line(text)


def one_line(text: str) -> str:
    """text without line breaks and other control characters."""
    return re.sub(r"[\x00-\x1f\x7f\u2028\u2029]+", " ", text).strip()
