"""Clients that wait, cancel and go away at a server that comes and goes, and what its queue must say of their jobs afterwards."""

import os
import random
import signal
import sqlite3
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import httpx
from serve_server import PATIENCE, REQUESTS, T2V

from animatediff_turbo.serve import states


@dataclass
class Crowd:
    """jobs: of each client. inputs: a job's, from a random generator and a number that no other job has. patience: seconds until a job must have ended.

    accepted: the ids that they were told. cancelled: those whose cancel was confirmed. results: the statuses of those that somebody waited for.
    accepting: seconds from sending a job to its id.
    """

    address: str
    jobs: int
    inputs: object
    patience: float = PATIENCE
    accepted: set = field(default_factory=set)
    cancelled: set = field(default_factory=set)
    results: dict = field(default_factory=dict)
    accepting: list = field(default_factory=list)

    def client(self, number):
        dice = random.Random(number)
        with httpx.Client(base_url=self.address, timeout=PATIENCE, trust_env=False) as client:
            for job in range(self.jobs):
                deadline = time.monotonic() + self.patience
                while not self.sent(client, dice, 1000 * number + job):
                    assert time.monotonic() < deadline
                    time.sleep(0.05)

    def sent(self, client, dice, number):
        """False when nobody was there to send it to. Where the answer was lost it is not sent again."""
        try:
            self.one(client, dice, number)
        except httpx.ConnectError:
            return False
        except httpx.TransportError:
            pass
        return True

    def one(self, client, dice, number):
        inputs = self.inputs(dice, number)
        if dice.random() < 0.2:
            client.post(f"/run{T2V}", json=inputs | {"seed": number}, timeout=dice.choice((0.005, 5)))
            return
        started = time.perf_counter()
        id = client.post(T2V, json=inputs).json()["request_id"]
        self.accepting.append(time.perf_counter() - started)
        self.accepted.add(id)
        if dice.random() < 0.3 and self.patiently(lambda: client.put(f"{REQUESTS}/{id}/cancel")).status_code == 202:
            self.cancelled.add(id)
        if dice.random() < 0.5:
            self.results[id] = self.end(client, id)

    def end(self, client, id, pause=0.02):
        while self.patiently(lambda: client.get(f"{REQUESTS}/{id}/status").json())["status"] != "COMPLETED":
            time.sleep(pause)
            pause = min(2 * pause, 1.0)
        return self.patiently(lambda: client.get(f"{REQUESTS}/{id}")).status_code

    def patiently(self, ask):
        deadline = time.monotonic() + self.patience
        while True:
            try:
                return ask()
            except httpx.TransportError:
                assert time.monotonic() < deadline
                time.sleep(0.05)

    def ends(self):
        """The status of every accepted job's result."""
        with httpx.Client(base_url=self.address, timeout=PATIENCE, trust_env=False) as client:
            return {id: self.end(client, id) for id in self.accepted}


def storm(crowd, clients, server, restart, kills, kill_worker):
    """The crowd at work while its server is killed some times. kill_worker: called again and again until it says False. Gives the last server."""
    done = threading.Event()

    def killer():
        while not done.wait(0.3) and kill_worker():
            pass

    with ThreadPoolExecutor(clients + 1) as pool:
        killing = pool.submit(killer)
        running = [pool.submit(crowd.client, number) for number in range(clients)]
        try:
            server = killed(crowd, clients, server, restart, kills)
            for client in running:
                client.result()
        finally:
            done.set()
        killing.result()
    return server


def killed(crowd, clients, server, restart, kills):
    """The last of several servers, each killed after another fifth of the jobs."""
    for kill in range(1, kills + 1):
        deadline = time.monotonic() + crowd.patience
        while len(crowd.accepted) < kill * clients * crowd.jobs // 5 and time.monotonic() < deadline:
            time.sleep(0.01)
        server.kill()
        server = restart()
    return server


def small_storm(start, folder, settings, inputs):
    """Eight clients at a server with two workers of serve_worker.py in folder; workers are killed all the time, the server twice. Gives the statuses of the results."""
    server, dice, killings = start(**settings), random.Random(0), []
    server.until_logged("is ready", times=2)
    again = settings | {"port": int(server.address.rpartition(":")[2])}
    crowd = Crowd(server.address, 9, inputs)

    def kill_worker():
        killings.append(end_by_force(int((folder / "workers").read_text().split()[-dice.randint(1, 2)])))
        return True

    server = storm(crowd, 8, server, lambda: start(**again), 2, kill_worker)
    ends = crowd.ends()
    assert any(killings) and len(ends) > 8 * 9 // 2
    assert all(ends[id] == status for id, status in crowd.results.items()) and all(ends[id] == 499 for id in crowd.cancelled)
    # those whose answer was lost run too: low priority is begun last, so when it has both workers nothing else is left
    last = [server.submit(f"hold {number}", headers={"X-Fal-Queue-Priority": "low"}).json()["request_id"] for number in range(2)]
    for id in last:
        server.until_running(id)
    (folder / "release").touch()
    assert [server.result(id).status_code for id in last] == [200, 200]
    server.stop()
    assert len(check_ledger(folder / "server", crowd)) >= len(ends) + len(last)
    return set(ends.values())


def end_by_force(pid):
    """Whether there was such a process."""
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return False
    return True


def check_ledger(folder, crowd):
    """What a stopped server's queue in folder says: every job ended once, as its clients were told, with its file and no other. Gives the states."""
    database = sqlite3.connect(folder / "queue.sqlite")
    jobs = database.execute("SELECT id, state, file FROM jobs").fetchall()
    moves = database.execute("SELECT jobs.id, moves.event, moves.state FROM moves JOIN jobs ON jobs.number = moves.job ORDER BY moves.rowid").fetchall()
    database.close()
    assert crowd.accepted <= {id for id, _, _ in jobs}
    events = {id: [] for id, _, _ in jobs}
    for id, event, state in moves:
        events[id].append((event, state))
    for id, state, file in jobs:
        assert [each for _, each in events[id] if each in states.ENDED] == [state] and bool(file) == (state == states.DONE), id
        names = [event for event, _ in events[id]]
        if states.CANCEL in names:
            assert states.CLAIM not in names[names.index(states.CANCEL) :] and state == states.CANCELLED, id
    assert crowd.cancelled <= {id for id, state, _ in jobs if state == states.CANCELLED}
    there, wanted = {path.name for path in (folder / "files").iterdir()}, {file for _, _, file in jobs if file}
    assert there == wanted, f"nobody's: {sorted(there - wanted)}; lost: {sorted(wanted - there)}"
    return [state for _, state, _ in jobs]
