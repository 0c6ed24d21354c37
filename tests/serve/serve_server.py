"""A server of `serve/` in a process of its own, on loopback."""

import json
import os
import re
import subprocess
import sys
import threading
import time
from pathlib import Path

import httpx

HERE = Path(__file__).parent
WORKER = [sys.executable, str(HERE / "serve_worker.py")]
T2V = "/fal-ai/fast-animatediff/turbo/text-to-video"
V2V = "/fal-ai/fast-animatediff/turbo/video-to-video"
REQUESTS = "/fal-ai/fast-animatediff/requests"
PATIENCE = 60.0
"""Seconds after which what has not happened is a failure."""


class Server:
    """Running from the start until `stop` or `kill`; with the same folder it goes on with the same queue. text: what it has logged."""

    def __init__(self, folder, command=None, **settings):
        self.folder, self.notes = folder / "server", folder
        fake = {"worker": WORKER, "models": {"notes": str(folder)}, "devices": ["a"]}
        given = {"folder": str(self.folder), "port": 0} | fake | settings
        environment = {"OMP_NUM_THREADS": "1"} | {name: value for name, value in os.environ.items() if not name.startswith(("FAL_", "ADT_"))}
        command = command or [sys.executable, str(HERE / "serve_start.py"), json.dumps(given)]
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment)
        self.lines, self._spoken = [], threading.Condition()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        self.address = self.until_logged(r"Listening at (\S+) ")[1]
        self.client = httpx.Client(base_url=self.address, timeout=PATIENCE, trust_env=False, verify=False)

    def _read(self):
        for line in self.process.stderr:
            with self._spoken:
                self.lines.append(line)
                self._spoken.notify_all()
        with self._spoken:
            self.lines.append("(end)")
            self._spoken.notify_all()

    @property
    def text(self):
        return "".join(self.lines)

    def until_logged(self, pattern, times=1):
        with self._spoken:
            found = self._spoken.wait_for(lambda: len(re.findall(pattern, self.text)) >= times or "(end)" in self.lines, PATIENCE)
            match = re.search(pattern, self.text)
            assert found and match, self.text
            return match

    def submit(self, prompt="a boat", path=T2V, headers=None, **inputs):
        return self.client.post(path, json={"prompt": prompt} | inputs, headers=headers)

    def accepted(self, prompt="a boat", **inputs):
        answer = self.submit(prompt, **inputs)
        assert answer.status_code == 200, answer.text
        return answer.json()["request_id"]

    def status(self, id, **options):
        return self.client.get(f"{REQUESTS}/{id}/status", params={"logs": "1"}, **options)

    def until(self, id, *states, **options):
        deadline = time.monotonic() + PATIENCE
        while (status := self.status(id, **options).json())["status"] not in states:
            assert time.monotonic() < deadline, status
            time.sleep(0.01)
        return status

    def until_running(self, id):
        """The worker has said something of it."""
        deadline = time.monotonic() + PATIENCE
        while not self.until(id, "IN_PROGRESS", "COMPLETED")["logs"]:
            assert time.monotonic() < deadline
            time.sleep(0.01)

    def result(self, id, **options):
        self.until(id, "COMPLETED", **options)
        return self.client.get(f"{REQUESTS}/{id}", **options)

    def cancel(self, id, **options):
        return self.client.put(f"{REQUESTS}/{id}/cancel", **options)

    def begun(self, id):
        """The seeds with which a worker has begun the job, one for each time."""
        path = self.notes / "begun"
        lines = path.read_text().splitlines() if path.exists() else []
        return [int(line.split()[1]) for line in lines if line.split()[0] == id]

    def stop(self):
        self.client.close()
        self.process.terminate()
        self._end()

    def kill(self):
        self.client.close()
        self.process.kill()
        self._end()

    def _end(self):
        self.process.wait(PATIENCE)
        self._reader.join(PATIENCE)
        self.process.stderr.close()
