"""A job as it is asked for, as it stands, and as the database holds it."""

import json
import sqlite3
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields

from . import states
from .states import Failure

Logs = list[dict[str, str]]
"""As fal's: message, level, source and timestamp of each line."""

TABLES = """
CREATE TABLE jobs (
  number INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, endpoint TEXT NOT NULL, owner TEXT NOT NULL, digest TEXT NOT NULL,
  inputs TEXT NOT NULL, priority INTEGER NOT NULL, state TEXT NOT NULL, attempts INTEGER NOT NULL DEFAULT 0, created REAL NOT NULL,
  start_by REAL, source TEXT NOT NULL, model TEXT NOT NULL DEFAULT '', started REAL, ended REAL, file TEXT, bytes INTEGER NOT NULL DEFAULT 0, failure TEXT, logs TEXT NOT NULL DEFAULT '[]'
);
CREATE INDEX jobs_by_state ON jobs (state, priority, number);
CREATE INDEX jobs_by_digest ON jobs (digest, state);
CREATE INDEX jobs_by_file ON jobs (file);
CREATE TABLE moves (job INTEGER NOT NULL REFERENCES jobs (number) ON DELETE CASCADE, event TEXT NOT NULL, state TEXT NOT NULL, at REAL NOT NULL);
CREATE INDEX moves_by_job ON moves (job);
"""
WAITING = f"""
SELECT * FROM jobs AS job WHERE state = '{states.QUEUED}'
AND owner NOT IN (SELECT owner FROM jobs WHERE state IN ('{states.RUNNING}', '{states.CANCELLING}') GROUP BY owner HAVING count(*) >= ?)
AND NOT EXISTS (SELECT 1 FROM jobs AS twin WHERE twin.digest = job.digest AND twin.owner = job.owner AND twin.state = '{states.RUNNING}')
ORDER BY priority, number LIMIT 1
"""
"""The job that is next: its key has no more running than it may, and no equal one is being rendered."""


@dataclass(frozen=True)
class Order:
    """A job as it is asked for.

    owner: the name of the key. digest: equal ones ask for the same. inputs: JSON, the seed with them. start_seconds: until it must have begun, 0 for no limit.
    source: the name of the uploaded file that it starts from, empty without one.
    """

    endpoint: str
    owner: str
    digest: str
    inputs: Mapping[str, object] = field(repr=False)
    low_priority: bool = False
    start_seconds: float = 0.0
    source: str = ""


@dataclass(frozen=True)
class Job:
    """A job as it stands. created, started, ended: seconds since 1970. file: its name, of bytes bytes. logs: as fal's, complete when it has ended."""

    number: int
    id: str
    endpoint: str
    owner: str
    digest: str
    inputs: Mapping[str, object] = field(repr=False)
    priority: int
    state: str
    attempts: int
    created: float
    start_by: float | None
    source: str
    started: float | None
    ended: float | None
    file: str | None
    bytes: int
    failure: Failure | None
    logs: list[dict[str, str]] = field(repr=False)

    @property
    def has_ended(self) -> bool:
        """Whether nothing can change any more."""
        return self.state in states.ENDED


def to_json(failure: Failure) -> str:
    """As `from_row` reads it."""
    return json.dumps(asdict(failure))


def from_row(row: sqlite3.Row) -> Job:
    """The job that a row holds."""
    values = {each.name: row[each.name] for each in fields(Job)}
    values |= {"inputs": json.loads(row["inputs"]), "logs": json.loads(row["logs"])}
    return Job(**values | {"failure": Failure(**json.loads(row["failure"])) if row["failure"] else None})
