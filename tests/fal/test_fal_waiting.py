"""Waiting that a person can end: asked at least every quarter of a second."""

import asyncio
import itertools

import pytest
from fal_helpers import Quick

from animatediff_turbo.fal.errors import Interrupted
from animatediff_turbo.fal.waiting import Patience


def test_a_long_wait_asks_every_quarter_of_a_second():
    quick, asked = Quick(), []

    def interrupted():
        asked.append(quick.time)
        return False

    asyncio.run(Patience(quick.clock, interrupted).wait(60))
    gaps = [later - earlier for earlier, later in itertools.pairwise(asked)]
    assert quick.time == pytest.approx(60) and max(gaps) <= 0.25


def test_a_wait_ends_when_the_run_is_stopped():
    quick = Quick()
    with pytest.raises(Interrupted):
        asyncio.run(Patience(quick.clock, lambda: quick.time >= 5).wait(60))
    assert 5 <= quick.time <= 5.25


def test_work_is_cancelled_when_the_run_is_stopped():
    ends = []

    async def work():
        try:
            await asyncio.Event().wait()
        finally:
            ends.append("cancelled")

    async def run():
        stop = asyncio.Event()
        asyncio.get_running_loop().call_later(0.01, stop.set)
        await Patience(Quick().clock, stop.is_set).during(work())

    with pytest.raises(Interrupted):
        asyncio.run(run())
    assert ends == ["cancelled"]


def test_work_gives_what_it_gives_and_raises_what_it_raises():
    async def good():
        return 3

    async def bad():
        raise ValueError("why")

    patience = Patience(Quick().clock, lambda: False)
    assert asyncio.run(patience.during(good())) == 3
    with pytest.raises(ValueError, match="why"):
        asyncio.run(patience.during(bad()))
