"""Killed servers, killed workers, clients that go away: every accepted job ends exactly once."""

import os
import signal
import sys
import time
from pathlib import Path

import pytest
from serve_server import PATIENCE

from animatediff_turbo.serve import access, states
from animatediff_turbo.serve.queue import Queue


def workers(server):
    return [int(pid) for pid in (server.notes / "workers").read_text().split()]


def gone(pid):
    """Ended, or a child of nobody that nobody has buried yet."""
    stat = Path(f"/proc/{pid}/stat")
    return not stat.exists() or stat.read_text().rpartition(")")[2].split()[0] == "Z"


def until(condition):
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_after_kill_9_queued_jobs_run_and_interrupted_ones_run_again_with_the_same_seed(start, tmp_path):
    server = start()
    done = server.accepted("done", seed=3)
    video = server.result(done).json()["video"]["file_name"]
    running, waiting, cancelled = server.accepted("hold"), server.accepted("hold too"), server.accepted("never")
    server.until_running(running)
    assert server.cancel(cancelled).status_code == 202
    (server.folder / "files" / f"made-{'x' * 32}.mp4").write_bytes(b"was rendered, and the server died before it noted it")
    server.kill()
    if sys.platform == "linux":
        until(lambda: gone(workers(server)[0]))  # none is left behind
    (tmp_path / "release").touch()

    again = start()
    again.until_logged("2 jobs of the last time are waiting")
    result = again.result(running)
    assert result.status_code == 200 and again.result(waiting).status_code == 200
    first, second = again.begun(running)
    assert first == second == result.json()["seed"]
    assert "Begun again, with the same seed" in again.status(running).json()["logs"][0]["message"]
    assert again.client.get(f"/files/{video}").content == b"video 3" and again.begun(done) == [3]
    assert again.result(cancelled).status_code == 499 and again.begun(cancelled) == []
    assert len(list((again.folder / "files").iterdir())) == 3
    again.stop()
    queue = Queue(again.folder / "queue.sqlite")
    for id in (done, running, waiting, cancelled):
        assert [state for _, state in queue.moves(queue.get(id)) if state in states.ENDED] == [queue.get(id).state]
    queue.close()


def test_a_cancel_that_was_confirmed_holds_over_kill_9(start):
    server = start()
    id = server.accepted("stubborn")
    server.until_running(id)
    assert server.cancel(id).status_code == 202
    server.kill()
    assert start().result(id).status_code == 499


def test_a_server_that_is_told_to_end_leaves_its_jobs_to_the_next(start, tmp_path):
    server = start()
    id = server.accepted("hold")
    server.until_running(id)
    server.stop()
    (tmp_path / "release").touch()
    assert server.process.returncode in (0, -signal.SIGTERM) and start().result(id).status_code == 200


@pytest.mark.parametrize("prompt", ["die", "leave"])
def test_a_worker_that_dies_comes_back(start, prompt):
    """In the middle of a job, which fails; before it has begun, which it does again."""
    server = start()
    id, next_one = server.accepted(prompt), server.accepted("next")
    result = server.result(id)
    if prompt == "die":
        assert result.status_code == 503 and "killed by signal 9" in result.json()["detail"] and result.json()["error_type"] == "runner_disconnected"
        assert server.status(id).json()["error_type"] == "runner_disconnected" and len(server.begun(id)) == 1
    else:
        assert result.status_code == 200
    assert server.result(next_one).status_code == 200 and len(workers(server)) == 2


def test_a_worker_that_is_killed_while_it_waits_comes_back(start):
    server = start()
    server.result(server.accepted())
    os.kill(workers(server)[0], signal.SIGKILL)
    until(lambda: len(workers(server)) == 2)
    assert server.result(server.accepted()).status_code == 200


def test_out_of_memory_is_a_sentence_and_the_worker_goes_on(start):
    server = start()
    result = server.result(server.accepted("memory"))
    assert result.status_code == 500 and result.json()["detail"] == "The device is out of memory; use a smaller size or fewer frames."
    assert server.result(server.accepted()).status_code == 200 and len(workers(server)) == 1


def test_a_worker_that_says_nothing_is_ended(start):
    server = start(stall_seconds=0.5)
    result = server.result(server.accepted("silence"))
    assert result.status_code == 500 and "no sign of life for 0.5 s" in result.json()["detail"]
    assert server.result(server.accepted()).status_code == 200 and len(workers(server)) == 2


def test_a_worker_that_says_what_is_no_report_is_ended(start):
    server = start()
    assert server.result(server.accepted("noise")).status_code == 503
    assert server.result(server.accepted()).status_code == 200 and len(workers(server)) == 2


def test_devices_work_side_by_side_and_a_key_has_no_more_than_its_share(start, tmp_path):
    key = access.new_key(tmp_path / "keys.txt", "alice")
    server = start(devices=["a", "b", "c"], limits={"per_key": 2}, keys=str(tmp_path / "keys.txt"))
    server.client.headers["Authorization"] = f"Key {key}"
    ids = [server.accepted(f"hold {number}") for number in range(3)]
    for id in ids[:2]:
        server.until_running(id)
    assert server.status(ids[2]).json()["status"] == "IN_QUEUE"
    (server.notes / "release").touch()
    assert [server.result(id).status_code for id in ids] == [200] * 3 and len(workers(server)) == 3


def test_a_model_that_can_not_be_loaded_ends_the_server_with_a_sentence(start, tmp_path):
    server = start(models={"notes": str(tmp_path), "unfit": "There is no checkpoint at x; give another."})
    assert server.process.wait(PATIENCE) == 1
    server.until_logged("There is no checkpoint at x; give another.")


def test_a_second_server_is_refused_the_queue(start, tmp_path):
    start()
    with pytest.raises(AssertionError, match="stop the server that uses it"):
        start()


def test_finished_jobs_expire_and_their_files_with_them(start):
    server = start(keep_bytes=10)
    first, second = server.accepted(seed=1), server.accepted(seed=2)
    assert [server.result(id).status_code for id in (first, second)] == [200, 200]
    server.stop()
    again = start(keep_bytes=10)
    assert again.status(first).status_code == 404 and again.result(second).status_code == 200
    assert len(list((again.folder / "files").iterdir())) == 1


def test_a_full_queue_says_when_to_come_again(start):
    server = start(limits={"waiting": 1})
    running = server.accepted("hold")
    server.until_running(running)
    server.accepted("hold 2")
    answer = server.submit("one too many")
    assert answer.status_code == 429 and answer.headers["retry-after"].isdecimal() and "1 jobs are waiting" in answer.json()["detail"]
