"""Many clients that wait, cancel and go away, workers and servers that are killed: every accepted job ends exactly once."""

import os
import random
import signal
import sqlite3
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import httpx
from serve_server import PATIENCE, REQUESTS, T2V, WORKER

from animatediff_turbo.serve import states

CLIENTS, JOBS, KILLS = 8, 9, 2


class Crowd:
    """Clients of a server that comes and goes. accepted: what they were told the ids of. results: what they were told about those."""

    def __init__(self, address):
        self.address, self.accepted, self.results = address, set(), {}

    def client(self, number):
        dice = random.Random(number)
        with httpx.Client(base_url=self.address, timeout=PATIENCE, trust_env=False) as client:
            for job in range(JOBS):
                while not self.sent(client, dice, 1000 * number + job):
                    time.sleep(0.05)

    def sent(self, client, dice, seed):
        """False when nobody was there to send it to. Where the answer was lost it is not sent again."""
        try:
            self.one(client, dice, seed)
        except httpx.ConnectError:
            return False
        except httpx.TransportError:
            pass
        return True

    def one(self, client, dice, seed):
        inputs = {"prompt": dice.choice(("slow", "slow", "memory", "die" if dice.random() < 0.2 else "slow")), "seed": dice.randrange(100)}
        if dice.random() < 0.2:
            client.post(f"/run{T2V}", json=inputs | {"seed": seed}, timeout=dice.choice((0.005, 5)))
            return
        id = client.post(T2V, json=inputs).json()["request_id"]
        self.accepted.add(id)
        if dice.random() < 0.3:
            self.patiently(lambda: client.put(f"{REQUESTS}/{id}/cancel"))
        if dice.random() < 0.5:
            self.results[id] = self.end(client, id)

    def end(self, client, id):
        while self.patiently(lambda: client.get(f"{REQUESTS}/{id}/status").json())["status"] != "COMPLETED":
            time.sleep(0.02)
        return self.patiently(lambda: client.get(f"{REQUESTS}/{id}")).status_code

    @staticmethod
    def patiently(ask):
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                return ask()
            except httpx.TransportError:
                assert time.monotonic() < deadline
                time.sleep(0.05)


def kill_workers(server, done):
    dice = random.Random(0)
    while not done.wait(0.3):
        try:
            os.kill(int((server.notes / "workers").read_text().split()[-dice.randint(1, 2)]), signal.SIGKILL)
        except ProcessLookupError:
            pass


def test_every_accepted_job_ends_exactly_once(start, tmp_path):
    settings = {"devices": ["a", "b"], "worker": WORKER}
    server = start(**settings)
    crowd, done = Crowd(server.address), threading.Event()
    settings["port"] = int(server.address.rpartition(":")[2])
    killer = threading.Thread(target=kill_workers, args=(server, done))
    killer.start()
    with ThreadPoolExecutor(CLIENTS) as pool:
        clients = [pool.submit(crowd.client, number) for number in range(CLIENTS)]
        for kill in range(1, KILLS + 1):
            deadline = time.monotonic() + PATIENCE
            while len(crowd.accepted) < kill * CLIENTS * JOBS // 5 and time.monotonic() < deadline:
                time.sleep(0.01)
            server.kill()
            server = start(**settings)
        for client in clients:
            client.result()
    done.set()
    killer.join()
    with httpx.Client(base_url=server.address, timeout=PATIENCE, trust_env=False) as client:
        ends = {id: crowd.end(client, id) for id in crowd.accepted}
    assert all(ends[id] == status for id, status in crowd.results.items()) and len(ends) > CLIENTS * JOBS // 2
    assert set(ends.values()) == {200, 499, 500, 503}
    # those whose answer was lost run too: low priority is begun last, so when it has both workers nothing else is left
    last = [server.submit(f"hold {number}", headers={"X-Fal-Queue-Priority": "low"}).json()["request_id"] for number in range(2)]
    for id in last:
        server.until_running(id)
    (tmp_path / "release").touch()
    assert [server.result(id).status_code for id in last] == [200, 200]
    server.stop()
    database = sqlite3.connect(tmp_path / "server" / "queue.sqlite")
    jobs = database.execute("SELECT id, state, file FROM jobs").fetchall()
    moves = database.execute("SELECT jobs.id, moves.state FROM moves JOIN jobs ON jobs.number = moves.job").fetchall()
    database.close()
    assert crowd.accepted <= {id for id, _, _ in jobs}
    for id, state, file in jobs:
        ended = [each for job, each in moves if job == id and each in states.ENDED]
        assert ended == [state] and bool(file) == (state == states.DONE), id
    assert {path.name for path in (tmp_path / "server" / "files").iterdir()} == {file for _, _, file in jobs if file}
