"""How many paid jobs one run may start, and how many of them at once."""

import asyncio
import threading
from dataclasses import dataclass, field

from .config import Config
from .errors import NotSentError

AT_ONCE = 2
"""What fal.ai lets a new account run at the same time; more would wait there."""


@dataclass
class Fanout:
    """The paid jobs of one run. stopped: once the person has stopped the run; none of its other jobs may start then."""

    turn: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(AT_ONCE))
    started: int = 0
    stopped: threading.Event = field(default_factory=threading.Event)

    def start(self, config: Config) -> None:
        """Counts one more; raises NotSentError when that is more than a run may start."""
        if self.started >= config.max_jobs:
            raise NotSentError("N", f"This run would send more than {config.max_jobs} paid jobs. Raise ADT_FAL_MAX_JOBS_PER_RUN if that is intended.")
        self.started += 1


class Fanouts:
    """The Fanout of the run that is going on; ComfyUI runs one queued prompt at a time."""

    def __init__(self) -> None:
        self._run, self._fanout = "", Fanout()

    def of(self, run: str) -> Fanout:
        """Of the run of this name; the one before is forgotten."""
        if run != self._run:
            self._run, self._fanout = run, Fanout()
        return self._fanout
