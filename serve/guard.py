"""What every request passes before the application sees it: whose it is, where it comes from, how much of it comes and how slowly."""

import asyncio
import ipaddress
import re
from collections.abc import Mapping

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from . import access
from .answers import Refused, refusal
from .settings import Settings

PUBLIC = (("GET", "/files/"), ("HEAD", "/files/"), ("PUT", "/storage/put/"))
OPEN = ("/", "/page.css", "/page.js", "/openapi.json")
"""Neither needs a key: names and tokens in the first can't be guessed, and the others are no secret."""
UPLOADS = "/storage/put/"
HOST = re.compile(r"([A-Za-z0-9.-]{1,253}|\[[0-9A-Fa-f:.]{2,45}\])(:[0-9]{1,5})?")
FAL = ("fal.run", "queue.fal.run")
"""Names under which clients may call that were made to believe that this is fal."""
SAFE = ("GET", "HEAD")
HEADERS = {
    "X-Content-Type-Options": "nosniff", "X-Frame-Options": "DENY", "Referrer-Policy": "no-referrer", "Cross-Origin-Opener-Policy": "same-origin",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'", "Cache-Control": "no-store",
}  # fmt: skip


class Guard:
    """An ASGI application in front of another. keys: names by hashes, see `access`; None lets everybody in that reaches it."""

    def __init__(self, app: ASGIApp, settings: Settings, keys: Mapping[str, str] | None):
        self._app, self._settings, self._keys = app, settings, keys

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers what is not allowed, and passes on the rest with its owner in `request.state.owner`."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        send = _sealed(send)
        try:
            owner = self._admitted(scope)
        except Refused as error:
            await refusal(error)(scope, receive, send)
            return
        scope["state"] = dict(scope.get("state", {})) | {"owner": owner}
        await self._app(scope, self._bounded(scope, receive), send)

    def _admitted(self, scope: Scope) -> str:
        """Whose request it is. Raises Refused."""
        headers, method, path = Headers(scope=scope), scope["method"], scope["path"]
        host = headers.get("host", "")
        if not HOST.fullmatch(host):
            raise Refused(400, "The header Host is no host.", "bad_request")
        if self._settings.is_local and not _is_local(host):
            # a web page whose name was made to lead here would be of the same origin otherwise
            raise Refused(403, "This server answers under localhost only; call it by that name.", "bad_request")
        own = self._settings.origin.partition("//")[2] or host
        origin = headers.get("origin")
        is_foreign = headers.get("sec-fetch-site") == "cross-site" or (origin is not None and origin.partition("//")[2] != own)
        if method not in SAFE and is_foreign:
            raise Refused(403, "Requests from pages of other sites are not taken.", "bad_request")
        if self._keys is None or path in OPEN or any(method == each and path.startswith(start) for each, start in PUBLIC):
            return access.EVERYBODY
        found = access.owner(self._keys, headers.get("authorization", ""))
        if found is None:
            known = "No user found for Key ID and Secret" if "authorization" in headers else "Authentication is required: send the header Authorization: Key ..."
            raise Refused(401, known, "unauthorized", {"WWW-Authenticate": "Key"})
        return found

    def _bounded(self, scope: Scope, receive: Receive) -> Receive:
        limits = self._settings.limits
        most, seconds = (limits.upload, limits.upload_seconds) if scope["path"].startswith(UPLOADS) else (limits.body, limits.body_seconds)
        announced = Headers(scope=scope).get("content-length", "0")
        deadline = asyncio.get_running_loop().time() + seconds
        came, complete = 0, False

        async def bounded() -> Message:
            nonlocal came, complete
            if complete:
                return await receive()
            if announced.isdecimal() and int(announced[:20]) > most:
                raise HTTPException(413, f"The request has more than {most} bytes; send less.")
            try:
                message = await asyncio.wait_for(receive(), max(0.0, deadline - asyncio.get_running_loop().time()))
            except asyncio.TimeoutError:
                raise HTTPException(408, f"The request did not come within {seconds:g} s.") from None
            came += len(message.get("body", b""))
            complete = message["type"] != "http.request" or not message.get("more_body")
            if came > most:
                raise HTTPException(413, f"The request has more than {most} bytes; send less.")
            return message

        return bounded


def _sealed(send: Send) -> Send:
    async def sealed(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            for name, value in HEADERS.items():
                headers.setdefault(name, value)
        await send(message)

    return sealed


def _is_local(host: str) -> bool:
    name = host.lower() if host.endswith("]") else host.rpartition(":")[0].lower() if ":" in host else host.lower()
    try:
        return name in ("localhost", *FAL) or name.endswith(".localhost") or ipaddress.ip_address(name.strip("[]")).is_loopback
    except ValueError:
        return False
