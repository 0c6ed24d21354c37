"""What a job of the queue may be, and every way from one to the other."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

QUEUED, RUNNING, CANCELLING = "queued", "running", "cancelling"
DONE, FAILED, CANCELLED = "done", "failed", "cancelled"
ENDED = frozenset({DONE, FAILED, CANCELLED})
"""States that a job never leaves."""

CLAIM, ANSWER, FINISH, FAIL, CANCEL, STOPPED, REQUEUE = "claim", "answer", "finish", "fail", "cancel", "stopped", "requeue"

MOVES: Mapping[tuple[str, str], str] = MappingProxyType(
    {
        (QUEUED, CLAIM): RUNNING,  # a worker gets it
        (QUEUED, ANSWER): DONE,  # an equal job is done already
        (QUEUED, FAIL): FAILED,  # its time to start is over
        (QUEUED, CANCEL): CANCELLED,
        (RUNNING, FINISH): DONE,
        (RUNNING, FAIL): FAILED,
        (RUNNING, CANCEL): CANCELLING,  # the worker is told, and has not stopped yet
        (RUNNING, REQUEUE): QUEUED,  # the server or the worker was gone before it could say how it went
        # a cancel that was confirmed holds, whatever the worker was about to say
        (CANCELLING, FINISH): CANCELLED,
        (CANCELLING, FAIL): CANCELLED,
        (CANCELLING, STOPPED): CANCELLED,
        (CANCELLING, REQUEUE): CANCELLED,
        # asked once more, as clients do whose answer was lost
        (CANCELLING, CANCEL): CANCELLING,
        (CANCELLED, CANCEL): CANCELLED,
    }
)
"""(state, event): the next state. What is not here does not happen."""


@dataclass(frozen=True)
class Failure:
    """Why a job failed, as fal says it: the status of its result, a sentence or a list of faulty fields, and fal's word for it."""

    status: int
    detail: str | list[dict[str, object]]
    error_type: str


CANCELLED_BY_CLIENT = Failure(499, "The job was cancelled.", "client_cancelled")
NOT_STARTED = Failure(504, "No worker became free in the time that X-Fal-Request-Timeout allows; the job was not started.", "request_timeout")
INTERRUPTED = Failure(500, "The server or its worker stopped each time while it rendered this job; it is not tried again.", "runner_server_error")
UNWRITABLE = Failure(500, "The video could not be written; ask whoever runs the server whether its disk is full.", "runner_server_error")
