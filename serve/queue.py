"""The durable queue: jobs in SQLite, each of which ends exactly once, whatever stops the server.

Every change is one transaction that is on disk before anybody is told. Only the process that opened the queue writes it: the database is locked
for as long as it lives, and free again the moment it is gone.
"""

import contextlib
import json
import secrets
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from . import states
from .jobs import TABLES, WAITING, Job, Logs, Order, from_row, to_json
from .states import Failure

VERSION = 1
MAX_ATTEMPTS = 5
"""How often a job is begun; one that stops the whole machine each time is not begun for ever."""
ANSWERED = [{"message": "Answered from an equal job that is done.", "level": "INFO", "source": "USER", "timestamp": ""}]


class QueueError(RuntimeError):
    """The queue can't be used; one sentence with the fix."""


class FullError(QueueError):
    """As many jobs as the queue may hold are waiting."""


class Queue:
    """The jobs in the database at path; safe to call from any thread. model: what renders them now, by which equal jobs are told. clock: seconds since 1970.

    Raises QueueError when another server has it, or it is of a later version.
    """

    def __init__(self, path: Path, model: str = "", clock: Callable[[], float] = time.time):
        self._model, self._clock, self._lock = model, clock, threading.RLock()
        self._db = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=1.0)
        self._db.row_factory = sqlite3.Row
        try:
            self._prepare(path)
        except sqlite3.Error as error:
            self._db.close()
            raise QueueError(f"The queue {path} can't be opened ({error}); stop the server that uses it, or choose another --folder.") from error

    def _prepare(self, path: Path) -> None:
        # exclusive before the first access: the lock is taken with it and kept
        for pragma in ("locking_mode = EXCLUSIVE", "journal_mode = WAL", "synchronous = FULL", "foreign_keys = ON"):
            self._db.execute(f"PRAGMA {pragma}")
        with self._change():
            (version,) = self._db.execute("PRAGMA user_version").fetchone()
            if version > VERSION:
                raise sqlite3.DatabaseError(f"it is of version {version}, and this program knows {VERSION}")
            if version == 0:
                for statement in filter(str.strip, TABLES.split(";")):
                    self._db.execute(statement)
                self._db.execute(f"PRAGMA user_version = {VERSION}")

    def close(self) -> None:
        """Writes what is left and frees the database."""
        with self._lock:
            self._db.close()

    @contextlib.contextmanager
    def _change(self) -> Iterator[None]:
        """One transaction: all of the block, on disk when it is left, or nothing."""
        with self._lock, self._db:
            self._db.execute("BEGIN IMMEDIATE")
            yield

    def _rows(self, sql: str, *values: object) -> list[sqlite3.Row]:
        with self._lock:
            return self._db.execute(sql, values).fetchall()

    def _move(self, job: Job, event: str, **columns: object) -> Job:
        """The job after an event, which must be possible; within a transaction."""
        state, now = states.MOVES[job.state, event], self._clock()
        if state == job.state:
            return job
        columns = columns if state != states.CANCELLED else {"logs": columns.get("logs", "[]"), "failure": to_json(states.CANCELLED_BY_CLIENT)}
        columns |= {"state": state} | ({"ended": now} if state in states.ENDED else {})
        names = ", ".join(f"{name} = ?" for name in columns)
        changed = self._db.execute(f"UPDATE jobs SET {names} WHERE number = ? AND state = ? AND attempts = ?", (*columns.values(), job.number, job.state, job.attempts))
        if changed.rowcount != 1:
            raise QueueError(f"Job {job.id} is not {job.state} any more.")
        self._db.execute("INSERT INTO moves VALUES (?, ?, ?, ?)", (job.number, event, state, now))
        return self._job(job.id)

    def _job(self, id: str) -> Job:
        return from_row(self._rows("SELECT * FROM jobs WHERE id = ?", id)[0])

    def submit(self, order: Order, room: int) -> Job:
        """Accepts a job; it is on disk when this returns. Raises FullError when room jobs are waiting."""
        now, id = self._clock(), secrets.token_hex(16)
        with self._change():
            if self.waiting() >= room:
                raise FullError(f"{room} jobs are waiting, which is as many as this server holds; try again later.")
            columns = {
                "id": id, "endpoint": order.endpoint, "owner": order.owner, "digest": order.digest, "inputs": json.dumps(dict(order.inputs)),
                "priority": int(order.low_priority), "state": states.QUEUED, "created": now, "source": order.source,
                "start_by": now + order.start_seconds if order.start_seconds else None,
            }  # fmt: skip
            self._db.execute(f"INSERT INTO jobs ({', '.join(columns)}) VALUES ({', '.join('?' * len(columns))})", (*columns.values(),))
            job = self._job(id)
            self._db.execute("INSERT INTO moves VALUES (?, 'submit', ?, ?)", (job.number, states.QUEUED, now))
        return job

    def get(self, id: str, owner: str | None = None) -> Job | None:
        """A job, of this owner where one is given; None when there is none."""
        rows = self._rows("SELECT * FROM jobs WHERE id = ?", id)
        job = from_row(rows[0]) if rows else None
        return job if job and owner in (None, job.owner) else None

    def waiting(self) -> int:
        """How many jobs are queued."""
        return self._rows("SELECT count(*) FROM jobs WHERE state = ?", states.QUEUED)[0][0]

    def position(self, job: Job) -> int:
        """How many queued jobs come before it."""
        return self._rows("SELECT count(*) FROM jobs WHERE state = ? AND (priority, number) < (?, ?)", states.QUEUED, job.priority, job.number)[0][0]

    def moves(self, job: Job) -> list[tuple[str, str]]:
        """Every event of a job and the state after it, in order."""
        return [(row["event"], row["state"]) for row in self._rows("SELECT event, state FROM moves WHERE job = ? ORDER BY rowid", job.number)]

    def claim(self, per_key: int, exists: Callable[[str], bool]) -> Job | None:
        """The job that is next, for a worker that has nothing to do; None when there is none.

        Jobs that equal one that is done are ended with its file on the way. per_key: jobs that each owner may have running.
        exists: says whether a file is there.
        """
        with self._change():
            self._end_overdue()
            while rows := self._rows(WAITING, per_key):
                job = self._answered(from_row(rows[0]), exists)
                if job.state == states.QUEUED:
                    return self._move(job, states.CLAIM, attempts=job.attempts + 1, started=self._clock(), model=self._model)
        return None

    def answer(self, job: Job, exists: Callable[[str], bool]) -> Job:
        """A job that has just been accepted: ended with the file of an equal one of the same owner if one is done, and as it is otherwise."""
        with self._change():
            now = self._job(job.id)
            return self._answered(now, exists) if now.state == states.QUEUED else now

    def _answered(self, job: Job, exists: Callable[[str], bool]) -> Job:
        same = "SELECT file, bytes FROM jobs WHERE digest = ? AND owner = ? AND model = ? AND state = ? ORDER BY number DESC"
        for row in self._rows(same, job.digest, job.owner, self._model, states.DONE):
            if exists(row["file"]):
                return self._move(job, states.ANSWER, file=row["file"], bytes=row["bytes"], logs=json.dumps(ANSWERED), model=self._model)
        return job

    def finish(self, job: Job, file: str, size: int, logs: Logs) -> Job:
        """The job, begun as it is given, after its video is on disk; cancelled where that was asked for in the meantime, and the file is nobody's then."""
        return self._end(job, states.FINISH, file=file, bytes=size, logs=json.dumps(logs))

    def fail(self, job: Job, failure: Failure, logs: Logs) -> Job:
        """The job, begun as it is given, after it failed."""
        return self._end(job, states.FAIL, failure=to_json(failure), logs=json.dumps(logs))

    def stopped(self, job: Job, logs: Logs) -> Job:
        """The job, begun as it is given, after its worker has stopped because it was cancelled."""
        return self._end(job, states.STOPPED, logs=json.dumps(logs))

    def requeue(self, job: Job) -> Job:
        """The job, begun as it is given, to be begun again; failed when that has happened too often."""
        if job.attempts >= MAX_ATTEMPTS:
            return self.fail(job, states.INTERRUPTED, [])
        return self._end(job, states.REQUEUE, start_by=None)  # it had begun in time

    def _end(self, job: Job, event: str, **columns: object) -> Job:
        """After an event of the attempt that job names, whatever was asked for since."""
        with self._change():
            now = self._job(job.id)
            if now.attempts != job.attempts:
                raise QueueError(f"Job {job.id} was begun {now.attempts} times, and attempt {job.attempts} is not the last.")
            return self._move(now, event, **columns)

    def cancel(self, id: str, owner: str | None = None) -> Job | None:
        """The job after it was asked to stop, unchanged when it has ended; None when this owner has none of that id."""
        with self._change():
            job = self.get(id, owner)
            return self._move(job, states.CANCEL) if job and (job.state, states.CANCEL) in states.MOVES else job

    def recover(self) -> int:
        """After a start: takes back every job that the last server had begun. Gives their number."""
        begun = [from_row(row) for row in self._rows("SELECT * FROM jobs WHERE state IN (?, ?)", states.RUNNING, states.CANCELLING)]
        for job in begun:
            self.requeue(job)
        return len(begun)

    def end_overdue(self) -> int:
        """Fails the queued jobs whose time to start is over. Gives their number."""
        with self._change():
            return self._end_overdue()

    def _end_overdue(self) -> int:
        late = self._rows("SELECT * FROM jobs WHERE state = ? AND start_by < ?", states.QUEUED, self._clock())
        for row in late:
            self._move(from_row(row), states.FAIL, failure=to_json(states.NOT_STARTED))
        return len(late)

    def expire(self, seconds: float, size: int) -> tuple[int, set[str]]:
        """Forgets jobs that ended more than seconds ago, and the oldest ones as long as all files have more than size bytes.

        Gives their number, and the files that are nobody's now.
        """
        with self._change():
            before, total = self._clock() - seconds, 0
            gone = {row["number"]: row["file"] for row in self._rows("SELECT number, file FROM jobs WHERE ended < ?", before)}
            kept = self._rows("SELECT file, bytes, max(number) AS last FROM jobs WHERE file IS NOT NULL AND ended >= ? GROUP BY file ORDER BY last DESC", before)
            for row in kept:
                total += row["bytes"]
                if total > size:
                    gone |= {each["number"]: row["file"] for each in self._rows("SELECT number FROM jobs WHERE file = ?", row["file"])}
            self._db.executemany("DELETE FROM jobs WHERE number = ?", [(number,) for number in gone])
            left = self.files()
        return len(gone), {file for file in gone.values() if file and file not in left}

    @property
    def changes(self) -> int:
        """Grows with everything that is written."""
        return self._db.total_changes

    def files(self) -> set[str]:
        """The names of the videos of all jobs, and of what jobs that have not ended start from."""
        videos = {row["file"] for row in self._rows("SELECT DISTINCT file FROM jobs WHERE file IS NOT NULL")}
        ended = ", ".join(f"'{state}'" for state in sorted(states.ENDED))
        return videos | {row["source"] for row in self._rows(f"SELECT DISTINCT source FROM jobs WHERE state NOT IN ({ended})")} - {""}

