"""How many paid jobs one run may start, and how many of them at once."""

import asyncio
import weakref
from dataclasses import dataclass, field

from .config import Config
from .errors import NotSentError

AT_ONCE = 2
"""What fal.ai lets a new account run at the same time; more would wait there."""


@dataclass
class Fanout:
    """The paid jobs of one run."""

    turn: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(AT_ONCE))
    started: int = 0

    def start(self, config: Config) -> None:
        """Counts one more; raises NotSentError when that is more than a run may start."""
        if self.started >= config.max_jobs:
            raise NotSentError("N", f"This run would send more than {config.max_jobs} paid jobs. Raise ADT_FAL_MAX_JOBS_PER_RUN if that is intended.")
        self.started += 1


class Fanouts:
    """A Fanout for each event loop, as long as there is one: ComfyUI runs every queued prompt in a loop of its own."""

    def __init__(self) -> None:
        self._of: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, Fanout] = weakref.WeakKeyDictionary()

    def current(self) -> Fanout:
        """Of the run that this is called in."""
        return self._of.setdefault(asyncio.get_running_loop(), Fanout())
