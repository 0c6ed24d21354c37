"""What is said to clients, in fal's shapes."""

import json
from collections.abc import Mapping, Sequence

from starlette.responses import Response

from . import states
from .contract import APP
from .desk import Live
from .jobs import Job
from .states import Failure


class Refused(Exception):
    """A request is not taken: the status, a sentence or faulty fields, fal's word for it, further headers."""

    def __init__(self, status: int, detail: str | list[dict[str, object]], error_type: str, headers: Mapping[str, str] | None = None):
        super().__init__(error_type)
        self.status, self.detail, self.error_type, self.headers = status, detail, error_type, dict(headers or {})


def json_response(body: object, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """In ASCII, whatever letters or halves of letters a client has sent."""
    return Response(json.dumps(body, allow_nan=False), status, dict(headers or {}), "application/json")


def refusal(error: Refused) -> Response:
    """The answer to a request that is not taken.

    The connection is left open: closed with unread bytes in it, many clients would not see the answer. `patience` closes it where they don't end.
    """
    headers = error.headers | {"X-Fal-Error-Type": error.error_type}
    return json_response({"detail": error.detail} | ({"error_type": error.error_type} if isinstance(error.detail, str) else {}), error.status, headers)


def faults(found: Sequence[Mapping[str, object]]) -> Refused:
    """Faulty fields, without what was sent in them."""
    kept = [{"loc": list(each["loc"]), "msg": each["msg"], "type": each["type"]} | _context(each) for each in found]
    return Refused(422, kept, "validation_error", {"X-Fal-Billable-Units": "0"})


def _context(fault: Mapping[str, object]) -> dict[str, object]:
    context = fault.get("ctx")
    kept = {name: value for name, value in context.items() if isinstance(value, (int, float, str)) and name != "error"} if isinstance(context, dict) else {}
    return {"ctx": kept} if kept else {}


def addresses(job: Job, origin: str) -> dict[str, str]:
    """Where to ask about a job."""
    base = f"{origin}/{APP}/requests/{job.id}"
    return {"request_id": job.id, "response_url": base, "status_url": f"{base}/status", "cancel_url": f"{base}/cancel"}


def accepted(job: Job, position: int, origin: str) -> dict[str, object]:
    """The answer to a job that was sent."""
    return {"status": "IN_QUEUE", "logs": None, "metrics": {}, "queue_position": position} | addresses(job, origin)


def status(job: Job, live: Live | None, position: int, origin: str, with_logs: bool) -> dict[str, object]:
    """Where a job stands."""
    common = addresses(job, origin)
    if job.state == states.QUEUED:
        return common | {"status": "IN_QUEUE", "queue_position": position, "logs": None}
    if not job.has_ended:
        return common | {"status": "IN_PROGRESS", "logs": (list(live.logs) if live else []) if with_logs else None}
    seconds = max(0.0, job.ended - job.started) if job.started else 0.0
    body = common | {"status": "COMPLETED", "logs": job.logs if with_logs else None, "metrics": {"inference_time": round(seconds, 3)}}
    if job.failure:
        body |= {"error": _sentence(job.failure), "error_type": job.failure.error_type}
    return body


def _sentence(failure: Failure) -> str:
    return failure.detail if isinstance(failure.detail, str) else "; ".join(str(each["msg"]) for each in failure.detail)


def result(job: Job, origin: str) -> Response:
    """A job's video, or why there is none."""
    headers = {"x-fal-request-id": job.id}
    if job.failure:
        if job.failure.error_type == states.NOT_STARTED.error_type:
            headers["X-Fal-Request-Timeout-Type"] = "user"
        return refusal(Refused(job.failure.status, job.failure.detail, job.failure.error_type, headers))
    if job.state != states.DONE:
        return refusal(Refused(400, "Request is still in progress", "bad_request", headers))
    video = {"url": f"{origin}/files/{job.file}", "content_type": "video/mp4", "file_name": job.file, "file_size": job.bytes}
    return json_response({"video": video, "seed": job.inputs["seed"]}, 200, headers)
