"""fal's queue, one call for one request. Paths and answers: https://docs.fal.ai/model-apis/model-endpoints/queue"""

import asyncio
import json
import re
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from types import SimpleNamespace

import aiohttp
from yarl import URL

from .config import Config, Key
from .errors import AmbiguousError, FalError, NotSentError, scrub
from .request import FalRequest, Upload
from .waiting import Patience

MAX_REPLY = 1_000_000
"""Bytes of an answer of the queue."""
REQUEST_ID = re.compile(r"[A-Za-z0-9_-]{8,128}")
SUBMIT_TRIES, RETRY_SECONDS = 3, 60.0
USER_AGENT = "animatediff-turbo"
CONNECT, READY = 10.0, 30.0
"""Seconds until a socket is connected, and until it can be written to: names, proxy and TLS included."""
GAVE_UP = {408, 499, 502, 503, 504}
"""What gateways answer when they wait no longer, whatever becomes of the request behind them; fal.ai itself names an error_type with these."""
AMBIGUOUS = (
    "fal.ai may or may not have started (and billed) it, so it is not sent again. See https://fal.ai/dashboard; to send it anyway set if_lost to "
    "'submit again' or change the seed."
)
BROKEN = (aiohttp.ClientError, asyncio.TimeoutError, ValueError)
"""What a call may end with in place of an answer."""
PORTAL = "Something between here and fal.ai answered instead of fal.ai (log-in page of the network?)."


@dataclass(frozen=True)
class Reply:
    """An answer of the queue. body: of its JSON, None when it is none."""

    status: int
    headers: Mapping[str, str] = field(repr=False)
    body: object

    @property
    def detail(self) -> object:
        """What fal.ai says of an error, None when it was not fal.ai that answered."""
        return self.body.get("detail") if isinstance(self.body, dict) else None

    @property
    def by_portal(self) -> bool:
        """Whether a page came instead of an answer: from a network's log-in, a proxy, a firewall."""
        return "html" in self.headers.get("Content-Type", "")

    @property
    def error_type(self) -> str:
        """fal.ai's word for the failure of a job."""
        named = self.body.get("error_type") if isinstance(self.body, dict) else None
        return str(named or self.headers.get("X-Fal-Error-Type") or "")

    @property
    def tells_of_failure(self) -> bool:
        """Whether this is a job's failure as fal.ai or its model gives it, and not the words of something on the way, which know neither mark.

        Source: https://docs.fal.ai/model-apis/errors
        """
        return bool(self.error_type) or isinstance(self.detail, list)


class _UnsentError(aiohttp.ClientError):
    """No byte of the request has left: no connection stood, or no way through a proxy. error: what aiohttp says."""

    def __init__(self, host: str, error: Exception):
        super().__init__(host)
        self.host, self.error = host, error


async def _note(session: aiohttp.ClientSession, context: SimpleNamespace, parameters: aiohttp.TraceRequestHeadersSentParams) -> None:
    context.trace_request_ctx.append(parameters.method)


class Queue:
    """The queue of one app for one key; made by `connect`."""

    def __init__(self, session: aiohttp.ClientSession, config: Config, key: Key, patience: Patience):
        self._session, self._config, self._key, self._patience = session, config, key, patience

    async def submit(self, request: FalRequest, addresses: Mapping[str, str], start_seconds: float) -> str:
        """Sends the paid request exactly once and gives the job's id. addresses: of its uploads.

        It is sent again only where it cannot have arrived: no connection stood, or fal.ai refused it for being one of too many.

        Raises:
            NotSentError: there is no job.
            AmbiguousError: there may be one.
        """
        headers = {"X-Fal-Request-Timeout": f"{start_seconds:g}", "Content-Type": "application/json"}
        headers |= {} if self._config.keep_at_fal else {"X-Fal-Store-IO": "0"}
        url, waited, attempt = self._config.queue / request.endpoint, 0.0, 1
        while True:
            try:
                reply = await self._call("POST", url, headers, request.body(addresses).encode())
            except _UnsentError as error:
                if attempt == SUBMIT_TRIES:
                    raise _unreachable(error) from None
                pause = float(attempt)
            except BROKEN as error:
                raise AmbiguousError("A", f"The connection broke while the job was being sent ({type(error).__name__}). {AMBIGUOUS}") from None
            else:
                if reply.status != 429:
                    return self._accepted(reply)
                pause = _retry_after(reply)
                if attempt == SUBMIT_TRIES or waited + pause > RETRY_SECONDS:
                    raise NotSentError("R429", "fal.ai is limiting requests for this key. Nothing was generated; wait a minute.")
            await self._patience.wait(pause)
            waited, attempt = waited + pause, attempt + 1

    def _accepted(self, reply: Reply) -> str:
        request_id = reply.body.get("request_id") if isinstance(reply.body, dict) else None
        if 200 <= reply.status < 300 and isinstance(request_id, str) and REQUEST_ID.fullmatch(request_id):
            return request_id
        refused = 400 <= reply.status < 500 or (reply.status >= 500 and reply.detail is not None)
        if refused and (reply.status not in GAVE_UP or reply.error_type):
            raise self.failure(reply, "", NotSentError)
        what = PORTAL if reply.body is None else f"fal.ai gave an answer that is none (HTTP {reply.status})."
        raise AmbiguousError("O3" if reply.body is None else "A", f"{what} {AMBIGUOUS}")

    async def upload_addresses(self, upload: Upload) -> tuple[str, str]:
        """Where to put a file, and where it will be found.

        Raises NotSentError with what is wrong; nothing is paid for here.
        """
        url = (self._config.storage / "storage" / "upload" / "initiate").with_query(storage_type="gcs")
        body = json.dumps({"content_type": upload.content_type, "file_name": f"video{upload.suffix}"}).encode()
        try:
            reply = await self._call("POST", url, {"Content-Type": "application/json"}, body)
        except _UnsentError as error:
            raise _unreachable(error) from None
        except BROKEN as error:
            raise NotSentError("U", f"The video could not be uploaded ({type(error).__name__}). No job was sent.") from None
        if reply.status >= 400:
            raise self.failure(reply, "", NotSentError)
        found = reply.body if isinstance(reply.body, dict) else {}
        addresses = found.get("upload_url"), found.get("file_url")
        if not all(isinstance(address, str) and len(address) <= 4096 for address in addresses):
            raise NotSentError("U", "fal.ai gave no address to upload the video to (unexpected answer). No job was sent.")
        return addresses

    async def status(self, request: FalRequest, request_id: str) -> Reply:
        """One look at a job. Raises as `_call`."""
        return await self._call("GET", (self._of(request, request_id) / "status").with_query(logs="1"))

    async def result(self, request: FalRequest, request_id: str) -> Reply:
        """A finished job's answer. Raises as `_call`."""
        return await self._call("GET", self._of(request, request_id))

    async def cancel(self, request: FalRequest, request_id: str) -> Reply:
        """Asks fal.ai to stop a job. Raises as `_call`."""
        return await self._call("PUT", self._of(request, request_id) / "cancel")

    def _of(self, request: FalRequest, request_id: str) -> URL:
        # always from the id: the key must not follow an address that an answer names
        return self._config.queue / request.app / "requests" / request_id

    async def _call(self, method: str, url: URL, headers: dict[str, str] | None = None, body: bytes | None = None) -> Reply:
        """Raises one of BROKEN: _UnsentError where nothing has left, ValueError for an answer that is too long."""
        sent = {"Authorization": f"Key {self._key.secret}", "User-Agent": USER_AGENT, "Accept": "application/json"} | (headers or {})
        seconds = self._config.answer_seconds  # without a byte; an answer that comes drop by drop ends too
        limits = aiohttp.ClientTimeout(total=3 * seconds, connect=READY, sock_connect=CONNECT, sock_read=seconds)
        departed: list[str] = []
        options = {"headers": sent, "data": body, "allow_redirects": False, "timeout": limits, "proxy": self._config.proxy(url), "trace_request_ctx": departed}
        try:
            async with self._session.request(method, url, **options) as response:
                return Reply(response.status, response.headers, _json(await _read(response)))
        except BROKEN as error:
            if departed:
                raise
            raise _UnsentError(url.host or "", error) from None

    def failure(self, reply: Reply, request_id: str, kind: type[FalError]) -> FalError:
        """What a refusal or a failed job means, as an error of this kind."""
        code, sentence = _meaning(reply)
        return kind(code, scrub(sentence, self._key.secret), request_id)


@asynccontextmanager
async def connect(config: Config, key: Key, patience: Patience) -> AsyncIterator[Queue]:
    """The queue, over a session without cookies and with a connection for each request, so that none is sent on one that has died.

    A request that leaves is noted in its `trace_request_ctx`; a proxy that is asked to lead on first has seen nothing of it.

    Raises NotSentError when the proxy on the way cannot be used.
    """
    config.check_proxy()
    trace = aiohttp.TraceConfig()
    trace.on_request_headers_sent.append(_note)
    connector = aiohttp.TCPConnector(force_close=True)
    async with aiohttp.ClientSession(connector=connector, cookie_jar=aiohttp.DummyCookieJar(), trace_configs=[trace]) as session:
        yield Queue(session, config, key, patience)


async def _read(response: aiohttp.ClientResponse) -> bytes:
    content = bytearray()
    async for part in response.content.iter_chunked(2**16):
        content += part
        if len(content) > MAX_REPLY:
            raise ValueError("the answer is longer than a megabyte")
    return bytes(content)


def _unreachable(error: _UnsentError) -> NotSentError:
    if isinstance(error.error, aiohttp.ClientConnectorDNSError):
        return NotSentError("O1", f"Cannot reach fal.ai ({error.host}): no internet connection or DNS. Nothing was sent. The local AnimateDiff Turbo nodes work offline.")
    reason = type(error.error).__name__
    return NotSentError("O2", f"Cannot open a secure connection to {error.host} ({reason}). A proxy, firewall or wrong system clock may be in the way. Nothing was sent.")


def _json(content: bytes) -> object:
    try:
        return json.loads(content)
    except (ValueError, RecursionError):
        return None


def _retry_after(reply: Reply) -> float:
    text = reply.headers.get("Retry-After", "")
    return float(text) if text.isdecimal() else 2.0


FIXED = {
    401: ("K3", "fal.ai does not know this key. Check FAL_KEY: it has the form key_id:key_secret. Nothing was generated."),
    404: ("E404", "fal.ai no longer offers this model. Use the local node instead. Nothing was generated."),
    499: ("J2", "The job was cancelled at fal.ai (dashboard or another client)."),
}


def _meaning(reply: Reply) -> tuple[str, str]:
    """The code and sentence of a refusal or a failed job."""
    detail = reply.detail
    if reply.body is None:
        return "O3", f"{PORTAL} Nothing was generated."
    if isinstance(detail, list):
        return _rejected(detail)
    said = detail if isinstance(detail, str) else f"HTTP {reply.status}"
    if reply.status in FIXED:
        return FIXED[reply.status]
    if reply.status == 403 and re.search("locked|balance|top.?up", said, re.IGNORECASE):
        return "K4", f"fal.ai has locked this account ({said}). Top up at https://fal.ai/dashboard/billing. Nothing was generated."
    if reply.status in (402, 403):
        return "K5", f"fal.ai {'asks for payment' if reply.status == 402 else 'refused access to this model with this key'} ({said}). Nothing was generated."
    if reply.status == 504 and (reply.error_type == "request_timeout" or reply.headers.get("X-Fal-Request-Timeout-Type")):
        return "W", "No fal.ai machine became free in time. The job was dropped unstarted and not billed."
    if reply.status >= 500 and reply.error_type:
        return "J1", f"The job failed on fal.ai's side ({reply.error_type}). fal does not charge for server errors. Try again."
    if reply.status >= 500:
        return "S5", f"fal.ai reported an internal error (HTTP {reply.status}). fal does not charge for server errors. Try again later."
    return "V", f"fal.ai rejected the request ({said})."


def _rejected(detail: list) -> tuple[str, str]:
    parts = []
    for item in [each for each in detail if isinstance(each, dict)][:5]:
        if item.get("type") == "content_policy_violation":
            return "C", (
                "fal.ai's content check refused this prompt. Change the prompt; repeating it will not help. (fal may charge for refused jobs that already ran.)"
            )
        steps = item.get("loc")
        place = ".".join(str(step) for step in steps if step != "body") if isinstance(steps, list) else "request"
        parts.append(f"{place}: {item.get('msg', '')}"[:200])
    return "V", f"fal.ai rejected the inputs: {'; '.join(parts)}."
