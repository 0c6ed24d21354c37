"""What every test leaves as it was."""

import logging

import pytest


@pytest.fixture(autouse=True)
def as_loud_as_before():
    """The command line sets how much the package logs, for the whole process."""
    logger = logging.getLogger("animatediff_turbo")
    level = logger.level
    yield
    logger.setLevel(level)
