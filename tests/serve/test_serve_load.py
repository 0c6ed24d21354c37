"""Many clients that wait, cancel and go away, workers and servers that are killed: every accepted job ends exactly once."""

import random

from serve_crowd import Crowd, check_ledger, end_by_force, storm
from serve_server import WORKER

CLIENTS, JOBS, KILLS = 8, 9, 2


def inputs(dice, number):
    return {"prompt": dice.choice(("slow", "slow", "memory", "die" if dice.random() < 0.2 else "slow")), "seed": dice.randrange(100)}


def test_every_accepted_job_ends_exactly_once(start, tmp_path):
    settings = {"devices": ["a", "b"], "worker": WORKER}
    server, dice = start(**settings), random.Random(0)
    settings["port"] = int(server.address.rpartition(":")[2])
    crowd = Crowd(server.address, JOBS, inputs)
    killed = []

    def kill_worker():
        killed.append(end_by_force(int((tmp_path / "workers").read_text().split()[-dice.randint(1, 2)])))
        return True

    server = storm(crowd, CLIENTS, server, lambda: start(**settings), KILLS, kill_worker)
    assert any(killed)
    ends = crowd.ends()
    assert all(ends[id] == status for id, status in crowd.results.items()) and len(ends) > CLIENTS * JOBS // 2
    assert set(ends.values()) == {200, 499, 500, 503} and all(ends[id] == 499 for id in crowd.cancelled)
    # those whose answer was lost run too: low priority is begun last, so when it has both workers nothing else is left
    last = [server.submit(f"hold {number}", headers={"X-Fal-Queue-Priority": "low"}).json()["request_id"] for number in range(2)]
    for id in last:
        server.until_running(id)
    (tmp_path / "release").touch()
    assert [server.result(id).status_code for id in last] == [200, 200]
    server.stop()
    assert len(check_ledger(tmp_path / "server", crowd)) >= len(ends) + len(last)
