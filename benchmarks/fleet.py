"""The contestants' processes: started, asked, waited for with a limit, and ended."""

import json
import os
import queue
import subprocess
import sys
import threading
import time
from dataclasses import asdict
from pathlib import Path

from contestants import Contestant

HERE = Path(__file__).resolve().parent


class Failed(Exception):
    """A contestant's process ended, answered with an error or did not answer in time."""


class Worker:
    """One process of worker.py. common: the fields of `worker.Settings` that all share. environment: besides this process's."""

    def __init__(self, row: Contestant, common: dict, environment: dict[str, str] | None = None):
        self.row, self.log = row, Path(common["out"]) / f"{row.name.replace(' ', '_').replace(',', '')}.log"
        self.about: dict = {}
        self.open_s = 0.0
        settings = common | {"row": asdict(row), "began": time.time()} | ({"dtype": row.dtype} if row.dtype else {})
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                [sys.executable, str(HERE / "worker.py"), json.dumps(settings)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True,
                env=os.environ | {"PYTHONUNBUFFERED": "1"} | ({"TORCH_LOGS": "graph_breaks,recompiles"} if row.compiled else {}) | (environment or {}),
            )  # fmt: skip
        self.answers: queue.Queue[str | None] = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        for line in self.process.stdout:
            self.answers.put(line)
        self.answers.put(None)

    def send(self, command: dict) -> None:
        """Asks; the answer is `receive`d. A process that has ended is found there."""
        try:
            self.process.stdin.write(json.dumps(command) + "\n")
            self.process.stdin.flush()
        except (BrokenPipeError, ValueError):
            self.answers.put(None)

    def receive(self, seconds: float) -> dict:
        """The next answer; raises Failed, and ends the process when it is late."""
        try:
            line = self.answers.get(timeout=max(seconds, 0.1))
        except queue.Empty:
            self.stop(0)
            raise Failed(f"no answer within {seconds:.0f} s") from None
        if line is None:
            self.stop(5)
            raise Failed(f"ended with {self.process.returncode}: {last_line(self.log)}")
        answer = json.loads(line)
        if "error" in answer:
            raise Failed(answer["error"])
        return answer

    def wait_ready(self, seconds: float) -> None:
        """Until its models are loaded; raises Failed."""
        answer = self.receive(seconds)
        self.about, self.open_s = answer["about"], answer["open_s"]

    def ask(self, command: dict, seconds: float) -> dict:
        """`send` and `receive`."""
        self.send(command)
        return self.receive(seconds)

    @property
    def alive(self) -> bool:
        """Whether it can be asked."""
        return self.process.poll() is None

    def stop(self, seconds: float = 10) -> None:
        """Ends it, by force after seconds."""
        stop([self], seconds)


def stop(workers: list[Worker], seconds: float = 10) -> None:
    """Asks all to end and waits for seconds together, then ends them by force."""
    for worker in workers:
        if worker.alive and seconds:
            worker.send({"do": "quit"})
    ends = time.monotonic() + seconds
    for worker in workers:
        try:
            worker.process.wait(max(ends - time.monotonic(), 0.01))
        except subprocess.TimeoutExpired:
            worker.process.kill()
            worker.process.wait()


def last_line(log: Path) -> str:
    """Of a log that has one."""
    lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
    return lines[-1] if lines else "nothing was logged"
