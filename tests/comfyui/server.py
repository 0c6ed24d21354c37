"""A real ComfyUI server as a child process on loopback, and a client that speaks its HTTP and websocket API."""

import json
import os
import shutil
import socket
import struct
import subprocess
import sys
import time
import urllib.error
import urllib.request
import uuid
from pathlib import Path

from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

ROOT = Path(__file__).resolve().parents[2]
START_SECONDS, RUN_SECONDS = 180, 600


def find():
    """The ComfyUI checkout to test in, None when there is none: COMFYUI_PATH, else ~/comfy/ComfyUI."""
    path = Path(os.environ.get("COMFYUI_PATH") or Path.home() / "comfy" / "ComfyUI")
    return path if (path / "main.py").is_file() else None


def python(path):
    """The interpreter with ComfyUI's requirements: COMFYUI_PYTHON, a venv in or beside the checkout, else this one."""
    candidates = [os.environ.get("COMFYUI_PYTHON", "")]
    candidates += [folder / name / "bin" / "python" for folder in (path, path.parent) for name in ("venv", ".venv")]
    return str(next((candidate for candidate in candidates if candidate and Path(candidate).is_file()), sys.executable))


def run_cases(path, script, folder):
    """What a script beside this file prints in its last line, JSON; it runs in ComfyUI's Python."""
    command = [python(path), str(ROOT / "tests" / "comfyui" / script), str(path), str(folder)]
    run = subprocess.run(command, capture_output=True, text=True, check=False, cwd=path)
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout.splitlines()[-1])


class Refused(Exception):
    """ComfyUI did not accept a prompt; the argument is its answer."""


class Run:
    """What one queued prompt did: websocket events in order, texts, previews and the history entry."""

    def __init__(self):
        self.events, self.texts, self.previews, self.history = [], {}, [], {}

    def of(self, kind):
        return [data for event, data in self.events if event == kind]

    @property
    def executed(self):
        """Ids of the nodes that ran, as opposed to came from the cache."""
        return [data["node"] for data in self.of("executing") if data.get("node")]

    @property
    def error(self):
        """The exception message that ComfyUI shows; empty when there was none."""
        return " ".join(data["exception_message"].strip() for data in self.of("execution_error"))

    def output(self, node):
        return self.history["outputs"][node]


class Server:
    def __init__(self, path, base, *options, api_nodes=False, environment=None):
        self.path, self.base = path, Path(base)
        packs = self.base / "custom_nodes"
        packs.mkdir(parents=True, exist_ok=True)
        for name, source in {"animatediff_turbo": ROOT, "testing_pack": ROOT / "tests" / "comfyui" / "testing_pack"}.items():
            if not (packs / name).exists():
                (packs / name).symlink_to(source, target_is_directory=True)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.log_path = self.base / "server.log"
        command = [python(path), "main.py", "--cpu", "--disable-auto-launch", "--port", str(self.port), "--base-directory", str(self.base)]
        command += ["--database-url", "sqlite:///:memory:", *([] if api_nodes else ["--disable-api-nodes"]), *options]
        with self.log_path.open("w") as log:
            # one thread: on tensors this small two of them wait for each other, many times longer where other programs run
            environment = os.environ | {"OMP_NUM_THREADS": "1"} | (environment or {})
            self.process = subprocess.Popen(command, cwd=path, stdout=log, stderr=subprocess.STDOUT, env=environment)
        self._wait_until_ready()

    @property
    def log(self):
        return self.log_path.read_text(errors="replace")

    @property
    def startup_log(self):
        return self.log.partition("got prompt")[0]

    def _wait_until_ready(self):
        for _ in range(START_SECONDS * 4):
            if self.process.poll() is not None:
                raise RuntimeError(f"ComfyUI ended while starting:\n{self.log[-4000:]}")
            try:
                self.get("/system_stats")
            except (urllib.error.URLError, ConnectionError):
                time.sleep(0.25)
            else:
                return
        self.stop()
        raise RuntimeError(f"ComfyUI did not answer within {START_SECONDS} s:\n{self.log[-4000:]}")

    def kill(self):
        self.process.kill()
        self.process.wait()

    def stop(self):
        self.process.terminate()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def request(self, path, body=None):
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}{path}", data, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=60) as response:
            return response.read()

    def get(self, path):
        return json.loads(self.request(path))

    def post(self, path, body):
        return self.request(path, body)

    def run(self, prompt, workflow=None, during=None, preview=None):
        """Queues an API prompt, waits until it is over, and returns the Run. during(kind, data) sees every event as it comes."""
        client, result = uuid.uuid4().hex, Run()
        extra = {"extra_pnginfo": {"workflow": workflow}} if workflow else {}
        extra |= {"preview_method": preview} if preview else {}
        with connect(f"ws://127.0.0.1:{self.port}/ws?clientId={client}", max_size=None, ping_interval=None) as socket_:
            socket_.send(json.dumps({"type": "feature_flags", "data": {"supports_preview_metadata": False}}))
            try:
                answer = self.post("/prompt", {"prompt": prompt, "client_id": client, "extra_data": extra})
            except urllib.error.HTTPError as error:
                raise Refused(json.loads(error.read())) from error
            prompt_id = json.loads(answer)["prompt_id"]
            self._listen(socket_, prompt_id, result, during)
        result.history = self._history(prompt_id)
        return result

    def _listen(self, socket_, prompt_id, result, during):
        deadline = time.monotonic() + RUN_SECONDS
        while time.monotonic() < deadline:
            try:
                message = socket_.recv(timeout=RUN_SECONDS)
            except ConnectionClosed as error:
                raise RuntimeError(f"ComfyUI closed the connection:\n{self.log[-4000:]}") from error
            if isinstance(message, bytes):
                self._binary(message, result)
                continue
            event = json.loads(message)
            kind, data = event["type"], event["data"]
            result.events.append((kind, data))
            if during:
                during(kind, data)
            if kind == "executing" and data.get("node") is None and data.get("prompt_id") == prompt_id:
                return
        raise TimeoutError(f"The prompt did not end within {RUN_SECONDS} s.")

    @staticmethod
    def _binary(message, result):
        (kind,) = struct.unpack(">I", message[:4])
        if kind == 3:
            (length,) = struct.unpack(">I", message[4:8])
            node, text = message[8 : 8 + length].decode(), message[8 + length :].decode()
            result.texts.setdefault(node, []).append(text)
        elif kind in (1, 4):
            result.previews.append(message)

    def _history(self, prompt_id):
        for _ in range(200):  # the last event can come before the history is written
            history = self.get(f"/history/{prompt_id}")
            if prompt_id in history:
                return history[prompt_id]
            time.sleep(0.05)
        raise TimeoutError("The history of the prompt was not written.")

    def empty(self):
        """Removes what earlier runs left in the output and temp folders."""
        for name in ("output", "temp"):
            shutil.rmtree(self.base / name, ignore_errors=True)
            (self.base / name).mkdir()
