"""How many paid jobs a run may start, and how many at once."""

import asyncio

import pytest

from animatediff_turbo.fal import config, errors, fanout


def test_a_run_may_start_so_many_and_the_next_run_as_many_again(tmp_path):
    fanouts, settings = fanout.Fanouts(), config.Config(tmp_path, max_jobs=2)

    async def run():
        fanouts.current().start(settings)
        fanouts.current().start(settings)
        with pytest.raises(errors.NotSentError, match=r"This run would send more than 2 paid jobs\. Raise ADT_FAL_MAX_JOBS_PER_RUN"):
            fanouts.current().start(settings)

    asyncio.run(run())
    asyncio.run(run())


def test_two_are_at_fal_at_a_time():
    fanouts, here, most = fanout.Fanouts(), 0, 0

    async def job():
        nonlocal here, most
        async with fanouts.current().turn:
            here += 1
            most = max(most, here)
            await asyncio.sleep(0)
            here -= 1

    async def run():
        await asyncio.gather(*(job() for _ in range(9)))

    asyncio.run(run())
    assert most == fanout.AT_ONCE == 2


def test_a_run_that_is_over_leaves_nothing_behind():
    fanouts = fanout.Fanouts()

    async def run():
        assert fanouts.current() is fanouts.current()

    asyncio.run(run())
    assert len(fanouts._of) == 0
