"""Two things at once: one thread makes items, another uses them."""
import itertools
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from queue import SimpleQueue
from typing import TypeVar

Item, Result = TypeVar("Item"), TypeVar("Result")

AHEAD = 8
"""Items that wait for the other thread at most; frames come from a VAE four at a time."""


class _Abandoned(BaseException):
    """Ends the user of the items when there will be no more of them; never leaves this file."""


def overlapped(use: Callable[[Iterator[Item]], Result], items: Iterable[Item]) -> Result:
    """`use(items)`, with `use` in a thread of its own while this one, which may be the only one that knows what is interrupted, makes the items.

    What `use` raises ends the making of items at the next one, and is raised here. What the items raise is raised here, after `use` was ended by an
    exception where it waits for its next item. Either way the thread has ended when this returns.
    """
    waiting, free = SimpleQueue(), threading.Semaphore(AHEAD)

    def taken() -> Iterator[Item]:
        for item, abandoned in iter(waiting.get, None):
            if abandoned:
                raise _Abandoned
            free.release()
            yield item

    with ThreadPoolExecutor(1, thread_name_prefix="animatediff_turbo_encode") as pool:
        used = pool.submit(use, taken())
        used.add_done_callback(lambda _: free.release())  # who waits for a free place learns that there is no use
        last = (None, True)
        try:
            for item in itertools.takewhile(lambda _: free.acquire() and not used.done(), items):
                waiting.put((item, False))
            last = None
        finally:
            waiting.put(last)
    return used.result()
