"""One paid request for one clip against a real HTTP server on loopback, whatever goes wrong on the way."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace

import pytest
from fal_helpers import Quick, asked, run, state_of
from fal_server import KEY

from animatediff_turbo.fal import config, errors, job, journal


def test_a_job_is_sent_once_and_its_video_is_kept(server, settings, video):
    seen = []
    found = run(settings, report=seen.append)
    assert found.path.read_bytes() == video and (found.seed, found.cached) == (5, False)
    assert server.posts == 1 and server.jobs[found.request_id].arguments == dict(asked().arguments)
    texts = [progress.text for progress in seen]
    assert texts[0] == "Sending" and any("Queued at fal.ai (position 0)" in text for text in texts) and texts[-1].startswith("Downloading")
    assert [(progress.step, progress.steps) for progress in seen if progress.steps] == [(1, 4), (2, 4)]
    again = run(settings, key=lambda: pytest.fail("no key is needed"))
    assert again == replace(found, cached=True) and server.posts == 1


def test_what_is_sent_is_the_endpoints_and_the_key_goes_to_the_queue_alone(server, settings):
    run(settings)
    method, path, headers = server.requests[0]
    assert (method, path) == ("POST", "/fal-ai/fast-animatediff/turbo/text-to-video")
    assert headers["Authorization"] == f"Key {KEY}" and headers["X-Fal-Request-Timeout"] == "600"
    for _, path, headers in server.requests:
        assert ("Authorization" in headers) == (not path.startswith("/files/"))
    id_ = next(iter(server.jobs))
    assert {path for method, path, _ in server.requests if method == "GET"} == {
        f"/fal-ai/fast-animatediff/requests/{id_}/status", f"/fal-ai/fast-animatediff/requests/{id_}", f"/files/{id_}.mp4"
    }  # fmt: skip


def test_an_address_that_an_answer_names_is_not_followed(server, settings):
    server.reset(foreign="http://127.0.0.1:9")
    assert run(settings).seed == 5


@pytest.mark.parametrize("plan", [["drop"], ["slow"], [(500, {"detail": "x"})] * 3, [(502, "<html>")], [(429, {"detail": "x"})], ["html"]], ids=str)
def test_a_bad_look_is_looked_again(server, settings, plan):
    server.reset(status=list(plan))
    assert run(settings).seed == 5 and server.posts == 1
    server.reset(results=list(plan) if plan != [(500, {"detail": "x"})] * 3 else [(502, "<html>")])
    assert run(settings, asked(seed=6)).seed == 6 and server.posts == 1


def test_unknown_states_and_missing_fields_are_waited_through(server, settings):
    server.reset(status=[(202, {"status": "PONDERING"}), (202, {"status": "IN_PROGRESS"}), (202, {"status": "IN_QUEUE"}), (202, [])])
    assert run(settings).seed == 5


def test_lost_contact_keeps_the_job_and_the_next_run_collects_it(server, settings):
    server.reset(status=[(502, "<html>")] * 500)
    with pytest.raises(errors.LostContactError, match="run the same inputs again to collect it"):
        run(settings)
    assert state_of(settings).state == journal.SUBMITTED and server.count("PUT") == 0
    server.does.status.clear()
    assert run(settings).seed == 5 and server.posts == 1


FAILED = {
    "runner": ((503, {"detail": "x", "error_type": "runner_disconnected"}), "J1"),
    "internal": ((500, {"detail": "x", "error_type": "internal_error"}), "J1"),
    "cancelled": ((499, {"detail": "x", "error_type": "client_cancelled"}), "J2"),
    "no machine": ((504, {"detail": "x", "error_type": "request_timeout"}), "W"),
    "invalid": ((422, {"detail": [{"loc": ["body", "prompt"], "msg": "too long", "type": "x"}]}), "V"),
    "by its header": ((500, {"detail": "x"}, {"X-Fal-Error-Type": "runner_server_error"}), "J1"),
    "the model's own": ((500, {"detail": [{"loc": ["body"], "msg": "out of memory", "type": "internal_server_error"}]}), "V"),
}


@pytest.mark.parametrize(("answer", "code"), FAILED.values(), ids=FAILED)
def test_a_failed_job_is_one_sentence_with_its_id_and_may_be_sent_again(server, settings, answer, code):
    server.reset(results=[answer])
    with pytest.raises(errors.JobError, match=r"\[request request-\d+\]$") as caught:
        run(settings)
    assert caught.value.code == code and server.posts == 1 and server.count("PUT") == 0
    assert run(settings).seed == 5 and server.posts == 2


def test_a_damaged_video_on_disk_is_fetched_again_without_a_job(server, settings, video):
    path = run(settings).path
    path.write_bytes(video[:-5])
    assert run(settings).path.read_bytes() == video and server.posts == 1


def test_two_equal_requests_at_once_are_one_job(server, settings):
    async def both():
        runners = [job.Runner(settings, lambda: config.Key(KEY), clock=Quick().clock) for _ in range(2)]
        return await asyncio.gather(*(runner.run(asked(), job.Options()) for runner in runners))

    first, second = asyncio.run(both())
    assert server.posts == 1 and first.path == second.path and {first.cached, second.cached} == {True, False}


KILLED = """
import asyncio, sys
from pathlib import Path
from yarl import URL
from animatediff_turbo.fal import config, job, request
settings = config.Config(Path(sys.argv[1]), queue=URL(sys.argv[2]))
wanted = request.text_to_video("a boat", "", 16, 4, 1.0, 5, 8, "square", 512, 512)
asyncio.run(job.Runner(settings, lambda: config.Key(sys.argv[3])).run(wanted, job.Options()))
"""


def test_a_kill_between_submit_and_result_costs_nothing(server, settings):
    server.reset(running=10**6)
    process = subprocess.Popen([sys.executable, "-c", KILLED, str(settings.folder), server.address, KEY])
    deadline = time.monotonic() + 60
    while not server.count("GET", "/status") and time.monotonic() < deadline:
        time.sleep(0.02)
    process.kill()
    assert process.wait() == -signal.SIGKILL and state_of(settings).state == journal.SUBMITTED
    server.does.running = 1
    assert run(settings).seed == 5 and server.posts == 1


def test_a_journal_that_cannot_be_written_stops_the_job_before_it_is_sent(server, settings):
    (settings.folder / "fal").write_text("a file where the folder should be")
    with pytest.raises(errors.NotSentError, match="remote jobs are not sent without a record of them"):
        run(settings)
    assert server.posts == 0


def test_a_journal_that_cannot_be_read_stops_it_too(server, settings):
    run(settings)
    (settings.folder / "fal" / asked().key(settings) / "state.json").write_text("{")
    with pytest.raises(errors.NotSentError, match="Cannot read .*state.json"):
        run(settings)
    assert server.posts == 1


def test_a_limit_of_jobs_stops_before_anything_is_sent(server, settings):
    def full():
        raise errors.NotSentError("N", "This run would send more than 8 paid jobs.")

    with pytest.raises(errors.NotSentError, match="more than 8"):
        run(settings, may_start=full)
    assert server.posts == 0


def test_nothing_written_holds_the_key_or_the_prompt_and_others_cannot_read_it(server, settings, caplog):
    caplog.set_level(0)
    wanted = asked(prompt="SECRETPROMPT")
    run(settings, wanted)
    server.reset(submit=[(400, {"detail": f"what is {KEY}?"})])
    with pytest.raises(errors.NotSentError) as caught:
        run(settings, asked(seed=9))
    assert KEY not in str(caught.value) and "test-key-secret" not in str(caught.value) and "***" in str(caught.value)
    written = b"".join(path.read_bytes() for path in settings.folder.rglob("*") if path.is_file())
    for secret in (KEY, "test-key-secret", "SECRETPROMPT"):
        assert secret.encode() not in written and secret not in caplog.text
    assert KEY not in repr(config.Key(KEY)) + str(config.Key(KEY))
    if os.name == "posix":
        modes = {path.name: path.stat().st_mode & 0o077 for path in settings.folder.rglob("*") if path.suffix in (".json", ".mp4")}
        assert modes and not any(modes.values())


def test_the_oldest_results_go_when_there_are_too_many_and_unfinished_jobs_stay(server, settings):
    few = replace(settings, max_entries=2)
    server.reset(submit=["drop"])
    with pytest.raises(errors.AmbiguousError):
        run(few, asked(seed=1))
    for seed in (2, 3, 4):
        run(few, asked(seed=seed))
        os.utime(few.folder / "fal" / asked(seed=seed).key(few) / "state.json", (seed, seed))
    run(few, asked(seed=5))
    states = {seed: state_of(few, asked(seed=seed)).state for seed in range(1, 6)}
    assert states[1] == journal.SUBMITTING and states[5] == journal.STORED and states[2] == journal.NONE


def test_a_refused_key_keeps_the_job(server, settings):
    server.reset(status=[(401, {"detail": "No user found"})])
    with pytest.raises(errors.LostContactError, match="The job is kept; run the same inputs again with its key"):
        run(settings)
    assert run(settings).seed == 5 and server.posts == 1


def test_the_video_just_paid_for_stays_whatever_the_clock_says(server, settings):
    """Others may be dated ahead of it, by a clock that was put back since."""
    few = replace(settings, max_entries=1)
    for seed in (1, 2):
        found = run(few, asked(seed=seed))
        os.utime(few.folder / "fal" / asked(seed=seed).key(few) / "state.json", (2e9, 2e9))
    assert found.path.is_file() and state_of(few, asked(seed=2)).state == journal.STORED


@pytest.mark.parametrize("text", ["[]", "{}", '{"state": "none"}', '{"state": "unheard of"}', "", "null"])
def test_a_state_that_is_none_stops_the_job(server, settings, text):
    folder = settings.folder / "fal" / asked().key(settings)
    folder.mkdir(parents=True)
    (folder / "state.json").write_text(text)
    with pytest.raises(errors.NotSentError, match="Remove the file to start anew"):
        run(settings)
    assert server.posts == 0
