"""What fal.ai says of a finished job: a video, a failure that is marked as one, and anything else, which ends no job that was paid for."""

import pytest
from fal_helpers import asked, run, state_of

from animatediff_turbo.fal import errors, job, journal

ODD = {
    "a gateway's 502 in JSON": (502, {"detail": "Bad Gateway"}),
    "a server's 500 in JSON": (500, {"detail": "Internal Server Error"}),
    "a 400 that comes too soon": (400, {"detail": "Request is still in progress"}),
    "a 409": (409, {"detail": "conflict"}),
    "JSON that is no object": (200, []),
    "a redirect": "redirect",
}


@pytest.mark.parametrize("answer", ODD.values(), ids=ODD)
def test_an_odd_answer_never_ends_a_paid_job(server, settings, answer):
    server.reset(results=[answer] * 2)
    assert run(settings).seed == 5 and server.posts == 1
    server.reset(results=[answer] * 500)
    for _ in range(2):
        with pytest.raises(errors.FalError, match="[Rr]un the same inputs again"):
            run(settings, asked(seed=6))
    assert server.posts == 1 and server.count("PUT") == 0 and state_of(settings, asked(seed=6)).state == journal.SUBMITTED
    server.does.results.clear()
    assert run(settings, asked(seed=6)).seed == 6 and server.posts == 1


def test_a_job_whose_result_stays_odd_is_sent_again_when_asked(server, settings):
    server.reset(results=[(500, {"detail": "x"})] * 999)
    with pytest.raises(errors.GoneError, match=r"has finished the job and gives no result \(HTTP 500 for 12\d s\)"):
        run(settings)
    found = run(settings, options=job.Options(submit_again=True), report=lambda progress: server.does.results.clear() if progress.text == "Sending" else None)
    assert found.seed == 5 and server.posts == 2


@pytest.mark.parametrize("answer", [(200, {"seed": 3}), (200, {"video": {"url": 3}})], ids=str)
def test_a_finished_job_without_a_video_is_asked_again_and_paid_for_again_only_when_asked(server, settings, answer):
    server.reset(results=[answer] * 3)
    for options in (job.Options(), job.Options()):
        with pytest.raises(errors.GoneError, match="finished without a video .* set if_lost to 'submit again'"):
            run(settings, options=options)
    assert server.posts == 1 and state_of(settings).state == journal.SUBMITTED
    assert run(settings, options=job.Options(submit_again=True)).seed == 5 and server.posts == 2


def test_a_failure_that_the_status_tells_of_is_one(server, settings):
    told = {"status": "COMPLETED", "error": "out of memory", "error_type": "internal_error"}
    server.reset(status=[(200, told)], results=[(500, {"detail": "x"})])
    with pytest.raises(errors.JobError):
        run(settings)
    assert state_of(settings).state == journal.FAILED


def test_a_job_that_is_not_known_yet_is_looked_at_again(server, settings):
    server.reset(status=[(404, {"detail": "not found"})] * 3)
    assert run(settings).seed == 5 and server.posts == 1


def test_a_video_that_is_lost_is_paid_for_again_only_when_asked(server, settings):
    server.reset(media=[(404, "x")] * 999)
    for _ in range(2):
        with pytest.raises(errors.LostMediaError, match="at 'submit again' it is generated anew, which may cost again"):
            run(settings)
    assert server.posts == 1
    with pytest.raises(errors.LostMediaError):
        run(settings, options=job.Options(submit_again=True))
    assert server.posts == 2


@pytest.mark.parametrize("media", ["drop", (403, "<html>firewall</html>"), (500, "x"), (200, "<html>")], ids=str)
def test_a_video_that_does_not_get_through_is_never_paid_for_again(server, settings, media):
    """It is still there: the network keeps it, or this machine can't read it."""
    server.reset(media=[media] * 999)
    for _ in range(2):
        with pytest.raises(errors.MediaError, match="not generated or billed again|not billed again"):
            run(settings, options=job.Options(submit_again=True))
    assert server.posts == 1


def test_a_result_that_fal_has_deleted_is_not_paid_for_again_unasked(server, settings):
    run(settings)
    entry = journal.Entry(settings.folder / "fal" / asked().key(settings))
    entry.video.unlink()
    server.jobs.clear()
    server.does.media = [(404, "gone")] * 99
    for _ in range(2):
        with pytest.raises(errors.GoneError, match="Generating it again costs again"):
            run(settings)
    assert server.posts == 1
    server.does.media = [(404, "gone")] * 4
    assert run(settings, options=job.Options(submit_again=True)).seed == 5 and server.posts == 2


@pytest.mark.parametrize("answer", [(500, {"detail": "x", "error_type": "internal_error"}), (422, {"detail": "x"}), (200, {"seed": 1})], ids=str)
def test_a_finished_job_stays_finished_whatever_is_said_of_it_later(server, settings, answer):
    server.reset(media=[(404, "x")] * 4, results=["right", *[answer] * 200])
    with pytest.raises(errors.MediaError, match="could not be downloaded"):
        run(settings)
    assert state_of(settings).state == journal.COMPLETED
    server.does.results.clear()
    assert run(settings).seed == 5 and server.posts == 1


@pytest.mark.parametrize("answer", [(400, "<html>proxy</html>"), (451, "<html>firewall</html>"), (404, "<html>portal</html>"), (403, "<html>log in</html>")], ids=str)
def test_a_page_in_place_of_an_answer_never_ends_a_paid_job(server, settings, answer):
    server.reset(status=[answer], results=[answer])
    assert run(settings).seed == 5 and server.posts == 1 and server.count("PUT") == 0
