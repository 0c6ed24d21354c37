"""How many paid jobs a run may start, and how many at once."""

import asyncio

import pytest

from animatediff_turbo.fal import config, errors, fanout


def test_a_run_may_start_so_many_and_the_next_run_as_many_again(tmp_path):
    fanouts, settings = fanout.Fanouts(), config.Config(tmp_path, max_jobs=2)
    for run in ("first", "second"):
        fanouts.of(run).start(settings)
        fanouts.of(run).start(settings)
        with pytest.raises(errors.NotSentError, match=r"This run would send more than 2 paid jobs\. Raise ADT_FAL_MAX_JOBS_PER_RUN"):
            fanouts.of(run).start(settings)


def test_two_are_at_fal_at_a_time():
    here, most = 0, 0

    async def job(turn):
        nonlocal here, most
        async with turn:
            here += 1
            most = max(most, here)
            await asyncio.sleep(0)
            here -= 1

    async def run():
        turn = fanout.Fanout().turn
        await asyncio.gather(*(job(turn) for _ in range(9)))

    asyncio.run(run())
    assert most == fanout.AT_ONCE == 2


def test_a_stopped_run_does_not_stop_the_next():
    fanouts = fanout.Fanouts()
    fanouts.of("first").stopped.set()
    assert fanouts.of("first").stopped.is_set() and not fanouts.of("second").stopped.is_set()
