"""What every test leaves as it was, and how many processors it takes."""

import logging
import os

# before torch is imported: two processes of two threads on two cores make tiny tensors ten times slower than two of one thread
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest


@pytest.fixture(autouse=True)
def as_loud_as_before():
    """The command line sets how much the package logs, for the whole process."""
    logger = logging.getLogger("animatediff_turbo")
    level = logger.level
    yield
    logger.setLevel(level)
