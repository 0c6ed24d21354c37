"""Connections that say nothing, or one letter a minute, are closed: uvicorn waits for the head of a request for ever."""

import asyncio

from uvicorn.protocols.http.h11_impl import H11Protocol


def impatient(seconds: float) -> type[H11Protocol]:
    """uvicorn's protocol, with so long for the head of each request."""

    class Impatient(H11Protocol):
        """One connection."""

        _deadline: asyncio.TimerHandle | None = None

        def connection_made(self, transport: asyncio.Transport) -> None:
            """Nothing has come yet."""
            super().connection_made(transport)
            self._watch()

        def data_received(self, data: bytes) -> None:
            """Something has come: the end of a head, or not yet."""
            super().data_received(data)
            self._watch()

        def connection_lost(self, exc: Exception | None) -> None:
            """Nothing more will come."""
            self._rest()
            super().connection_lost(exc)

        def _watch(self) -> None:
            if not self._is_waiting():
                self._rest()
            elif self._deadline is None:
                self._deadline = self.loop.call_later(seconds, self._close)

        def _is_waiting(self) -> bool:
            return self.cycle is None or self.cycle.response_complete

        def _rest(self) -> None:
            if self._deadline is not None:
                self._deadline.cancel()
                self._deadline = None

        def _close(self) -> None:
            self._deadline = None
            if self._is_waiting():
                self.transport.close()

    return Impatient
