"""The runs of a scenario: warm-ups, then timed rounds, one contestant after another, every answer on disk at once."""

import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from fleet import Failed, Worker
from scenarios import Scenario

COMPILE_SECONDS = 300
FEWEST_ROUNDS = 3


@dataclass
class Clock:
    """The time that is left of a budget in seconds."""

    budget: float
    began: float = field(default_factory=time.monotonic)

    def left(self) -> float:
        """Seconds, below 0 when it is over."""
        return self.budget - (time.monotonic() - self.began)


@dataclass
class Book:
    """What was found: also written line by line to path, so that a run that is cut off keeps it.

    first, second: the two first answers of each contestant's life. answers: by scenario and contestant. failures: contestant, where, why.
    """

    path: Path
    say: Callable[[str], None]
    answers: dict[Scenario, dict[str, list[dict]]] = field(default_factory=dict)
    warm: dict[str, list[dict]] = field(default_factory=dict)
    failures: list[tuple[str, str, str]] = field(default_factory=list)

    def note(self, kind: str, **fields) -> None:
        """One JSON line."""
        with self.path.open("a") as file:
            file.write(json.dumps({"kind": kind} | fields) + "\n")

    def fail(self, name: str, where: str, why: str) -> None:
        """Reported at the end; the others go on."""
        self.failures.append((name, where, why))
        self.note("failure", contestant=name, where=where, why=why)
        self.say(f"  {name}: FAILED in {where}: {why}")

    def warmed(self, name: str, scenario: Scenario, answer: dict) -> None:
        """An untimed run."""
        self.warm.setdefault(name, []).append(answer)
        self.note("warm", contestant=name, scenario=scenario.fields(), answer=answer)

    def timed(self, name: str, scenario: Scenario, answer: dict) -> None:
        """A timed run."""
        self.answers.setdefault(scenario, {}).setdefault(name, []).append(answer)
        self.note("run", contestant=name, scenario=scenario.fields(), answer=answer)


def each(fleet: dict[str, Worker], names: list[str], command: dict | None, seconds: float, together: bool, book: Book, where: str) -> dict[str, dict]:
    """The answers of those that answered; side by side, or one after another. Whose process has ended is reported and leaves the fleet."""
    answers = {}
    groups = [names] if together else [[name] for name in names]
    for group in groups:
        group = [name for name in group if name in fleet]
        for name in group if command else []:  # None: they were asked before
            fleet[name].send(command)
        ends = time.monotonic() + seconds
        for name in group:
            try:
                answers[name] = fleet[name].receive(ends - time.monotonic())
            except Failed as failure:
                book.fail(name, where, str(failure))
    for name in [name for name in fleet if not fleet[name].alive]:
        del fleet[name]
        if (name, where) not in [failure[:2] for failure in book.failures]:
            book.fail(name, where, "its process ended")
    return answers


def crowded(answers: dict[str, dict]) -> bool:
    """Whether the processes' caches fill the GPU, so that they have to be given back between turns. The VAE is greedy."""
    memories = [answer["memory"] for answer in answers.values() if "device" in answer["memory"]]
    return any(memory["free"] < 0.4 * memory["device"] for memory in memories)


def takes_part(worker: Worker, scenario: Scenario, met: set[tuple[str, tuple]], seconds: float) -> bool:
    """A compiled UNet needs minutes for a shape that it has not met."""
    return not worker.row.compiled or (worker.row.name, scenario.shape) in met or seconds > COMPILE_SECONDS


@dataclass
class Series:
    """How long and how often: at least FEWEST_ROUNDS while the clock has time. met: contestants and the shapes that they have run."""

    book: Book
    clock: Clock
    rounds: int
    warmup: int
    met: set[tuple[str, tuple]]

    def play(self, scenario: Scenario, fleet: dict[str, Worker], seconds: float) -> None:
        """Warm-ups, then rounds, within about seconds. Everybody of the fleet ends up in the book, with times or with why there are none."""
        ends, everybody = self.clock.left() - seconds, list(fleet)
        names = [name for name in everybody if takes_part(fleet[name], scenario, self.met, seconds)]
        for name in everybody:
            if name not in names:
                self.book.fail(name, scenario.name, "left out: no time to compile for this shape")
        names, release = self._warm(scenario, fleet, names, max(seconds / 2, 60))
        self.book.note("rounds", scenario=scenario.fields(), contestants=names, caches_released=release)
        for done in range(self.rounds):
            if not names or self.clock.left() < 0 or (done >= FEWEST_ROUNDS and self.clock.left() < ends):
                break
            names = [name for name in names if self._turn(scenario, fleet, name, release)]
        for name in names:
            if name not in self.book.answers.get(scenario, {}):
                self.book.fail(name, scenario.name, "left out: the time is over")

    def _warm(self, scenario: Scenario, fleet: dict[str, Worker], names: list[str], seconds: float) -> tuple[list[str], bool]:
        """Who answered every untimed run, and whether the GPU is so full that caches have to be given back between turns."""
        command, release = {"do": "run", "scenario": scenario.fields()}, False
        for _ in range(self.warmup):
            answers = {}
            for name in names:
                answers |= each(fleet, [name], command | {"release": release}, seconds, False, self.book, scenario.name)
                if not release and crowded(answers):
                    release = True
                    each(fleet, list(fleet), {"do": "release"}, 30, False, self.book, scenario.name)
            for name, answer in answers.items():
                self.book.warmed(name, scenario, answer)
            names = [name for name in answers if name in fleet]
        self.met |= {(name, scenario.shape) for name in names}
        return names, release

    def _turn(self, scenario: Scenario, fleet: dict[str, Worker], name: str, release: bool) -> bool:
        """One timed run; where processes give their caches back between turns, one step before it fills them again."""
        limit = max(self.clock.left() + 30, 30)
        command = {"do": "run", "scenario": scenario.fields(), "release": release}
        if release and not each(fleet, [name], command | {"scenario": scenario.one_step().fields(), "release": False}, limit, False, self.book, scenario.name):
            return False
        answer = each(fleet, [name], command, limit, False, self.book, scenario.name)
        if name in answer:
            self.book.timed(name, scenario, answer[name])
        return name in answer
