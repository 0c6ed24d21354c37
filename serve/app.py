"""fal's addresses and what answers there. https://queue.fal.run becomes this server's address, https://fal.run its /run."""

import contextlib
import logging
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from pathlib import Path

from fastapi import FastAPI, Request, Security
from fastapi.exceptions import RequestValidationError
from fastapi.security import APIKeyHeader
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import FileResponse, Response

from . import contract
from .answers import Refused, faults, refusal
from .contract import APP, Body, Cancelled, FastAnimatediffTurboOutput, QueueStatus, Refusal, UploadAddresses
from .guard import FAL, Guard
from .service import Service
from .settings import Settings

logger = logging.getLogger(__name__)

RUN = "/run"
REQUEST = f"/{APP}/requests/{{request_id}}"
DESCRIPTION = """AnimateDiff Turbo as fal.ai serves it, on a machine of one's own.

Fields that are left out are the served model's own where it was made for other values than these defaults."""
PAGE = {"/": "index.html", "/page.css": "page.css", "/page.js": "page.js"}
"""The playground: a form from the schema, plain files."""
SELF = {"Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; media-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"}
HEAVY = (400, 401, 403, 408, 413, 422, 429, 503)
LIGHT = (401, 403, 503)
Answer = Callable[..., Awaitable[Response]]


def build(service: Service, settings: Settings, keys: Mapping[str, str] | None, beside: Callable[[], contextlib.AbstractAsyncContextManager[None]]) -> FastAPI:
    """The application. keys: see `Guard`. beside: what runs as long as it does."""

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with beside():
            yield

    app = FastAPI(
        title="AnimateDiff Turbo", version="1", description=DESCRIPTION, lifespan=lifespan, docs_url=None, redoc_url=None, redirect_slashes=False,
    )  # fmt: skip
    app.state.has_keys = keys is not None
    for kind, answer in ((Refused, _refused), (RequestValidationError, _faulty), (HTTPException, _plain), (sqlite3.Error, _broken), (OSError, _broken), (ClientDisconnect, _left)):
        app.add_exception_handler(kind, answer)
    for endpoint, model in contract.INPUTS.items():
        name = endpoint.rpartition("/")[2].replace("-", "_")
        _add(app, f"/{endpoint}", _queued_or_run(service, endpoint, model), "POST", f"submit_{name}", 200, QueueStatus, (*HEAVY, 404, 499, 500, 504))
        _add(app, f"{RUN}/{endpoint}", _calling(service.run, endpoint, model), "POST", f"run_{name}", 200, FastAnimatediffTurboOutput, (*HEAVY, 404, 499, 500, 504))
    _add(app, f"{REQUEST}/status", service.status, "GET", "status", 202, QueueStatus, (404, 422, *LIGHT), QueueStatus)
    _add(app, f"{REQUEST}/status/stream", service.stream, "GET", "stream", 200, "text/event-stream", (404, 422, *LIGHT))
    _add(app, REQUEST, service.result, "GET", "result", 200, FastAnimatediffTurboOutput, (400, 404, 422, 499, 500, 504, *LIGHT))
    _add(app, f"{REQUEST}/cancel", service.cancel, "PUT", "cancel", 202, Cancelled, LIGHT, None, {400: {"model": Cancelled}, 404: {"model": Cancelled}})
    _add(app, "/storage/upload/initiate", service.initiate, "POST", "upload_initiate", 200, UploadAddresses, (408, 413, 429, *LIGHT))
    _add(app, "/storage/put/{name}", service.put, "PUT", "upload", 200, "", (403, 404, 408, 409, 413, 422, 503))
    for method in ("GET", "HEAD"):
        _add(app, "/files/{name}", service.file, method, f"file_{method.lower()}", 200, "video/mp4", (400, 403, 404, 416))
    for path, file in PAGE.items():
        app.add_api_route(path, _showing(file), methods=["GET"], include_in_schema=False)
    app.add_middleware(Guard, settings=settings, keys=keys)
    return app


def _add(
    app: FastAPI, path: str, answer: Answer, method: str, name: str, status: int, gives: type[BaseModel] | str, refusals: tuple[int, ...],
    complete: type[BaseModel] | None = None, others: Mapping[int, dict[str, object]] | None = None,
) -> None:
    """A route with everything that it may answer: at status what it gives, a model or a type of content; at 200 complete; others; and refusals."""
    responses = {code: {"model": Refusal} for code in refusals} | dict(others or {}) | ({200: {"model": complete}} if complete else {})
    plain = {"description": "Done"} | ({"content": {gives: {}}} if gives else {})
    responses[status] = plain if isinstance(gives, str) else {"model": gives}
    options = {"response_class": Response} if isinstance(gives, str) else {}
    if app.state.has_keys and 401 in refusals:
        options["dependencies"] = [Security(APIKeyHeader(name="Authorization", auto_error=False, description="Key and your key"))]
    app.add_api_route(path, answer, methods=[method], name=name, operation_id=name, status_code=status, response_model=None, responses=responses, **options)


def _calling(call: Callable[[str, Request, Body], Awaitable[Response]], endpoint: str, model: type[Body]) -> Answer:
    async def answer(request: Request, body: model) -> Response:
        return await call(endpoint, request, body)

    return answer


def _queued_or_run(service: Service, endpoint: str, model: type[Body]) -> Answer:
    """Under fal.ai's own names, where those lead to this server, both are at the same path."""

    async def answer(request: Request, body: model) -> Response:
        is_run = request.headers.get("host", "").partition(":")[0].lower() == FAL[0]
        return await (service.run if is_run else service.submit)(endpoint, request, body)

    return answer


def _showing(file: str) -> Answer:
    async def answer() -> Response:
        return FileResponse(Path(__file__).parent / "page" / file, headers=SELF)

    return answer


async def _refused(request: Request, error: Refused) -> Response:
    return refusal(error)


async def _faulty(request: Request, error: RequestValidationError) -> Response:
    return refusal(faults(error.errors()))


async def _plain(request: Request, error: HTTPException) -> Response:
    kind = "request_timeout" if error.status_code == 408 else "not_found" if error.status_code == 404 else "bad_request"
    return refusal(Refused(error.status_code, str(error.detail), kind, error.headers))


async def _left(request: Request, error: ClientDisconnect) -> Response:
    return Response(status_code=499)  # which nobody reads


async def _broken(request: Request, error: sqlite3.Error | OSError) -> Response:
    logger.error("The disk can't be read or written (%s).", type(error).__name__)
    return refusal(Refused(503, "The server's disk can't be read or written now; nothing was accepted. Try again later.", "internal_error", {"Retry-After": "10"}))
