"""A job that is not wanted any more: fal.ai is asked to stop it, and what it finishes all the same is not paid for twice."""

import asyncio
import threading
import time
from dataclasses import replace

import pytest
from fal_helpers import asked, run, state_of
from fal_server import KEY

from animatediff_turbo.fal import config, errors, job, journal
from animatediff_turbo.fal.waiting import Clock


def test_a_job_that_takes_too_long_is_cancelled(server, settings):
    server.reset(running=10**6)
    with pytest.raises(errors.JobError, match=r"No result after 1 minutes; fal\.ai was asked to cancel the job\. \[request request-"):
        run(settings, options=job.Options(minutes=1))
    assert server.count("PUT", "/cancel") == 1 and state_of(settings).state == journal.CANCELLING
    server.reset(running=10**6, cancel=[(500, {"detail": "x"})] * 9)
    with pytest.raises(errors.JobError, match="fal.ai did not confirm that the job is cancelled"):
        run(settings, asked(seed=8), options=job.Options(minutes=1))
    assert state_of(settings, asked(seed=8)).state == journal.SUBMITTED


def test_the_interrupt_cancels_at_fal(server, settings):
    server.reset(running=10**6)
    stop = threading.Event()
    with pytest.raises(errors.Interrupted):
        run(settings, interrupted=stop.is_set, report=lambda progress: stop.set() if progress.step else None, clock=Clock())
    assert server.count("PUT", "/cancel") == 1 and state_of(settings).state == journal.CANCELLING


def test_an_interrupt_while_the_job_is_being_sent_learns_its_id_and_cancels_it(server, settings):
    server.reset(hold_submit=0.6)
    begun = time.monotonic()
    with pytest.raises(errors.Interrupted):
        run(settings, interrupted=lambda: time.monotonic() - begun > 0.2, clock=Clock())
    assert server.posts == 1 and [each.cancelled for each in server.jobs.values()] == [True]


def test_another_nodes_failure_cancels_too(server, settings):
    """ComfyUI cancels the pending tasks of a run that has failed."""
    server.reset(running=10**6)

    async def both():
        runner = job.Runner(settings, lambda: config.Key(KEY))
        task = asyncio.ensure_future(runner.run(asked(), job.Options()))
        while not server.count("GET", "/status"):
            await asyncio.sleep(0.02)
        task.cancel()
        await task

    with pytest.raises(asyncio.CancelledError):
        asyncio.run(both())
    assert server.count("PUT", "/cancel") == 1 and state_of(settings).state == journal.CANCELLING


def stopped(settings, server, **behaviour):
    """A run that is stopped while its job is at work."""
    server.reset(**{"running": 3} | behaviour)
    stop = threading.Event()
    with pytest.raises(errors.Interrupted):
        run(settings, interrupted=stop.is_set, report=lambda progress: stop.set() if "Running" in progress.text else None)


def test_a_model_that_does_not_listen_is_collected_and_not_paid_for_twice(server, settings):
    stopped(settings, server, listens=False)
    assert state_of(settings).state == journal.CANCELLING
    assert run(settings).seed == 5 and server.posts == 1


@pytest.mark.parametrize("forgotten", [False, True], ids=["said to be cancelled", "not known any more"])
def test_a_job_that_was_cancelled_is_sent_anew_without_an_error(server, settings, forgotten):
    stopped(settings, server)
    if forgotten:
        server.jobs.clear()
    assert run(settings).seed == 5 and server.posts == 2


def test_a_job_that_fal_does_not_know_yet_when_it_is_to_be_cancelled_is_asked_for_first(server, settings):
    stopped(settings, server, cancel=[(404, {"status": "NOT_FOUND"})])
    assert state_of(settings).state == journal.CANCELLING
    assert run(settings).seed == 5 and server.posts == 1


@pytest.mark.parametrize("answer", [(502, {"detail": "Bad Gateway"}), (500, {"detail": "x"}), (400, {"detail": "x"}), (200, {"seed": 3}), (200, [])], ids=str)
def test_an_odd_answer_for_a_job_that_was_finished_all_the_same_sends_none(server, settings, answer):
    stopped(settings, server, listens=False, results=[answer] * 500)
    with pytest.raises(errors.GoneError, match="Run the same inputs again to ask once more without paying"):
        run(settings)
    server.does.results.clear()
    assert run(settings).seed == 5 and server.posts == 1


def test_a_finished_job_whose_video_is_lost_is_not_sent_again_because_it_was_to_be_cancelled(server, settings):
    stopped(settings, server, listens=False, media=[(404, "x")] * 99, results=["right", (404, {"detail": "expired"})])
    with pytest.raises(errors.GoneError, match="Generating it again costs again"):
        run(settings)
    assert server.posts == 1 and state_of(settings).state == journal.COMPLETED


def test_a_job_that_may_be_finished_outlives_many_others(server, settings):
    few = replace(settings, max_entries=1)
    stopped(few, server)
    for seed in (6, 7):
        run(few, asked(seed=seed))
    assert state_of(few).state == journal.CANCELLING


def test_contact_that_is_lost_to_a_job_that_was_to_be_cancelled_sends_none(server, settings):
    stopped(settings, server)
    server.does.status = [(502, "<html>")] * 500
    with pytest.raises(errors.LostContactError):
        run(settings, options=job.Options(submit_again=True))
    assert server.posts == 1 and state_of(settings).state == journal.CANCELLING


def test_a_job_that_was_finished_when_the_cancel_came_is_collected_by_the_next_run(server, settings):
    server.reset(running=1, cancel=[(400, {"status": "ALREADY_COMPLETED"})])
    stop = threading.Event()
    with pytest.raises(errors.Interrupted):
        run(settings, interrupted=stop.is_set, report=lambda progress: stop.set() if "Running" in progress.text else None)
    assert state_of(settings).state == journal.SUBMITTED
    assert run(settings).seed == 5 and server.posts == 1


def test_a_page_is_no_confirmation_of_a_cancel(server, settings):
    server.reset(running=10**6, cancel=[(200, "<html>log in</html>")])
    with pytest.raises(errors.JobError, match="did not confirm"):
        run(settings, options=job.Options(minutes=1))
    assert state_of(settings).state == journal.SUBMITTED


def test_a_disk_that_is_full_after_the_job_was_sent_cancels_it(server, settings):
    folder = settings.folder / "fal" / asked().key(settings)

    def full(progress):
        if progress.text == "Sending":  # from here on its state cannot be replaced: a folder is in its place
            (folder / "state.json").unlink()
            (folder / "state.json").mkdir()

    with pytest.raises(errors.AmbiguousError, match=r"cannot be recorded here; fal\.ai was asked to cancel the job\. Cannot write .*\[request request-"):
        run(settings, report=full)
    assert [each.cancelled for each in server.jobs.values()] == [True]
