"""The queue alone: every way through the table of states, and a process that is killed while it writes."""

import itertools
import subprocess
import sys
import time

import pytest

from animatediff_turbo.serve import jobs, states
from animatediff_turbo.serve.queue import MAX_ATTEMPTS, FullError, Queue, QueueError

FAILURE = states.Failure(500, "It broke.", "runner_server_error")
NAMES = itertools.count()


class Time:
    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Time()


@pytest.fixture
def queue(tmp_path, clock):
    opened = Queue(tmp_path / "queue.sqlite", clock=clock)
    yield opened
    opened.close()


def order(digest=None, owner="", **more):
    return jobs.Order("an/endpoint", owner, digest or f"digest {next(NAMES)}", {"prompt": "x", "seed": 1}, **more)


def claim(queue, per_key=100, exists=lambda name: True):
    return queue.claim(per_key, exists)


def test_every_state_but_the_last_ones_can_be_left_and_those_can_not():
    left = {state for state, _ in states.MOVES if states.MOVES[state, _] != state}
    assert left == {states.QUEUED, states.RUNNING, states.CANCELLING} and not left & states.ENDED
    assert set(states.MOVES.values()) == left | states.ENDED


def test_a_job_goes_through_the_queue(queue, clock):
    job = queue.submit(order(), 10)
    assert queue.get(job.id) == job and (job.state, queue.position(job), job.attempts) == (states.QUEUED, 0, 0)
    begun = claim(queue)
    assert (begun.id, begun.state, begun.attempts, begun.started) == (job.id, states.RUNNING, 1, clock.now) and claim(queue) is None
    clock.now += 5
    done = queue.finish(begun, "made-x.mp4", 7, [{"message": "1/1"}])
    assert (done.state, done.file, done.bytes, done.ended - done.started, done.logs) == (states.DONE, "made-x.mp4", 7, 5, [{"message": "1/1"}])
    assert queue.moves(job) == [("submit", "queued"), ("claim", "running"), ("finish", "done")]


@pytest.mark.parametrize("end", ["finish", "fail", "stopped", "requeue"])
def test_a_cancel_that_was_confirmed_holds_whatever_the_worker_says_next(queue, end):
    queue.submit(order(), 10)
    job = claim(queue)
    assert queue.cancel(job.id).state == states.CANCELLING and queue.cancel(job.id).state == states.CANCELLING
    arguments = {"finish": ("made-x.mp4", 1, []), "fail": (FAILURE, []), "stopped": ([],), "requeue": ()}[end]
    ended = getattr(queue, end)(job, *arguments)
    assert (ended.state, ended.file, ended.failure.status) == (states.CANCELLED, None, 499)
    assert queue.cancel(job.id).state == states.CANCELLED and [state for _, state in queue.moves(job)].count(states.CANCELLED) == 1


def test_a_job_that_ended_stays_as_it_is(queue):
    queue.submit(order(), 10)
    job = claim(queue)
    queue.fail(job, FAILURE, [])
    assert queue.cancel(job.id).state == states.FAILED and claim(queue) is None
    with pytest.raises(KeyError):
        queue.finish(job, "made-x.mp4", 1, [])
    assert queue.get(job.id).failure == FAILURE


def test_a_cancelled_job_is_never_begun(queue):
    job = queue.submit(order(), 10)
    assert queue.cancel(job.id).state == states.CANCELLED and claim(queue) is None
    assert queue.cancel("nothing") is None and queue.cancel(job.id, "somebody else") is None


def test_what_an_earlier_attempt_says_is_not_taken(queue):
    queue.submit(order(), 10)
    first = claim(queue)
    queue.requeue(first)
    second = claim(queue)
    with pytest.raises(QueueError, match="attempt 1 is not the last"):
        queue.finish(first, "made-x.mp4", 1, [])
    assert queue.finish(second, "made-y.mp4", 1, []).file == "made-y.mp4"


def test_what_was_begun_is_begun_again_but_not_for_ever(tmp_path, queue, clock):
    job = queue.submit(order(start_seconds=10), 10)
    for attempt in range(1, MAX_ATTEMPTS + 1):
        assert claim(queue).attempts == attempt
        clock.now += 60  # it had begun in time the first time
        queue.close()
        queue = Queue(tmp_path / "queue.sqlite", clock=clock)
        assert queue.recover() == 1
    assert queue.get(job.id).failure == states.INTERRUPTED and claim(queue) is None
    queue.close()


def test_one_server_has_a_queue(tmp_path, queue):
    with pytest.raises(QueueError, match="stop the server that uses it"):
        Queue(tmp_path / "queue.sqlite")


def test_a_full_queue_takes_no_more(queue):
    for _ in range(2):
        queue.submit(order(), 2)
    with pytest.raises(FullError, match="2 jobs are waiting"):
        queue.submit(order(), 2)
    claim(queue)
    queue.submit(order(), 2)


def test_low_priority_waits_for_the_others_and_a_key_for_itself(queue):
    low, first, second = queue.submit(order(owner="a", low_priority=True), 10), queue.submit(order(owner="a"), 10), queue.submit(order(owner="b"), 10)
    assert [queue.position(job) for job in (low, first, second)] == [2, 0, 1]
    running = claim(queue, 1)
    assert running.id == first.id and claim(queue, 1).id == second.id and claim(queue, 1) is None
    queue.finish(running, "made-x.mp4", 1, [])
    assert claim(queue, 1).id == low.id


def test_what_does_not_start_in_time_fails(queue, clock):
    job, patient = queue.submit(order(start_seconds=5), 10), queue.submit(order(), 10)
    clock.now += 4
    assert queue.end_overdue() == 0
    clock.now += 2
    assert claim(queue).id == patient.id
    assert queue.get(job.id).failure.status == 504 and queue.end_overdue() == 0


def test_a_change_is_made_whole_or_not_at_all(queue, clock):
    queue.submit(order("same"), 10)
    queue.finish(claim(queue), "made-a.mp4", 1, [])
    late, equal = queue.submit(order(start_seconds=1), 10), queue.submit(order("same"), 10)
    clock.now += 2

    def broken(name):
        raise OSError("the disk is gone")

    with pytest.raises(OSError, match="the disk is gone"):
        claim(queue, exists=broken)  # after it has failed the late one
    assert queue.get(late.id) == late and queue.get(equal.id) == equal and queue.moves(late) == [("submit", "queued")]
    assert claim(queue) is None and queue.get(late.id).state == states.FAILED and queue.get(equal.id).state == states.DONE


def test_equal_jobs_are_rendered_once(queue):
    first, again, others = queue.submit(order("same", "a"), 10), queue.submit(order("same", "a"), 10), queue.submit(order("same", "b"), 10)
    begun = claim(queue)
    assert begun.id == first.id and claim(queue).id == others.id and claim(queue) is None  # the second waits for the first
    queue.finish(begun, "made-x.mp4", 3, [])
    assert claim(queue) is None
    answered = queue.get(again.id)
    assert (answered.state, answered.file, answered.bytes) == (states.DONE, "made-x.mp4", 3)
    fourth = queue.answer(queue.submit(order("same", "a"), 10), lambda name: name == "made-x.mp4")
    assert fourth.state == states.DONE and queue.answer(queue.submit(order("same", "b"), 10), lambda name: True).state == states.QUEUED


def test_an_equal_job_whose_file_is_gone_or_that_failed_is_no_answer(queue):
    for end in (lambda job: queue.finish(job, "made-x.mp4", 1, []), lambda job: queue.fail(job, FAILURE, [])):
        queue.submit(order("same"), 10)
        end(claim(queue, exists=lambda name: False))
    again = queue.submit(order("same"), 10)
    assert claim(queue, exists=lambda name: False).id == again.id


def test_another_models_video_is_no_answer(tmp_path, queue, clock):
    """Also where the job was accepted for one model and is rendered by the next."""
    for number in range(2):
        queue.submit(order("same"), 10)
        if number == 0:
            queue.finish(claim(queue), "made-a.mp4", 1, [])
    queue.close()
    queue = Queue(tmp_path / "queue.sqlite", "another", clock)
    queue.finish(claim(queue), "made-b.mp4", 1, [])
    assert queue.answer(queue.submit(order("same"), 10), lambda name: True).file == "made-b.mp4"
    queue.close()
    queue = Queue(tmp_path / "queue.sqlite", "", clock)
    assert queue.answer(queue.submit(order("same"), 10), lambda name: True).file == "made-a.mp4"
    queue.close()


def test_old_jobs_and_too_many_bytes_expire_from_the_oldest_on(queue, clock):
    made = []
    for name in ("a", "b", "c"):
        made.append(queue.submit(order(), 10))
        queue.finish(claim(queue), f"made-{name}.mp4", 10, [])
        clock.now += 100
    waiting = queue.submit(order(source="sent-x.mp4"), 10)
    assert queue.expire(250, 100) == (1, {"made-a.mp4"}) and queue.get(made[0].id) is None
    assert queue.expire(1000, 15) == (1, {"made-b.mp4"}) and queue.files() == {"made-c.mp4", "sent-x.mp4"}
    assert queue.get(made[2].id) and queue.get(waiting.id) and queue.moves(made[0]) == []


def test_a_file_that_two_jobs_have_stays_as_long_as_one_of_them(queue, clock):
    queue.submit(order("same"), 10)
    queue.finish(claim(queue), "made-a.mp4", 10, [])
    clock.now += 100
    queue.answer(queue.submit(order("same"), 10), lambda name: True)
    assert queue.expire(50, 100) == (1, set()) and queue.files() == {"made-a.mp4"}
    clock.now += 100
    assert queue.expire(50, 100) == (1, {"made-a.mp4"})


KILLED = """
import sys
from pathlib import Path
from animatediff_turbo.serve.jobs import Order
from animatediff_turbo.serve.queue import Queue
from animatediff_turbo.serve.states import Failure
queue = Queue(Path(sys.argv[1]))
print("recovered", queue.recover(), flush=True)
number = 0
while True:
    number += 1
    print("accepted", queue.submit(Order("an/endpoint", "", f"{sys.argv[2]} {number}", {"seed": number}), 10**6).id, flush=True)
    if number % 3 == 0:
        continue
    job = queue.claim(10, lambda name: True)
    if number % 5 == 0:
        queue.cancel(job.id)
    if number % 2:
        queue.finish(job, f"made-{job.id}.mp4", 1, [])
    else:
        queue.fail(job, Failure(500, "x", "y"), [])
    print("ended", job.id, queue.get(job.id).state, flush=True)
"""


def test_what_was_accepted_or_ended_is_so_after_any_kill(tmp_path):
    accepted, ended = set(), {}
    for turn in range(4):
        process = subprocess.Popen([sys.executable, "-c", KILLED, str(tmp_path / "queue.sqlite"), str(turn)], stdout=subprocess.PIPE, text=True)
        lines = [process.stdout.readline() for _ in range(40 + 7 * turn)]
        process.kill()
        lines += process.stdout.readlines()
        process.wait(20)
        process.stdout.close()
        said = [line.split() for line in lines if line.endswith("\n")]
        accepted |= {words[1] for words in said if words[0] == "accepted"}
        ended |= {words[1]: words[2] for words in said if words[0] == "ended"}
    queue = Queue(tmp_path / "queue.sqlite")
    queue.recover()
    deadline = time.monotonic() + 60
    while job := claim(queue):
        assert time.monotonic() < deadline
        queue.finish(job, f"made-{job.id}.mp4", 1, [])
    assert len(accepted) > 60
    for id in accepted:
        job = queue.get(id)
        assert job.has_ended
        ends = [state for _, state in queue.moves(job) if state in states.ENDED]
        assert len(ends) == 1 and ends[0] == job.state
        assert ended.get(id, job.state) == job.state
    queue.close()
