"""The same server with its workers in a Ray cluster on this machine: what the queue promises holds, and a killed worker's job is begun again."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
from serve_crowd import end_by_force, small_storm
from serve_server import PATIENCE, V2V, Server

from animatediff_turbo.video.decode import decode

pytest.importorskip("ray", reason="needs the extra [ray]")


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """Its address. Two processors, so that two workers have room."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    folder, temporary = tmp_path_factory.mktemp("ray"), tempfile.mkdtemp(prefix="adt")  # short: Ray's sockets are in it
    command = [str(Path(sys.executable).with_name("ray")), "start", "--head", "--block", "--node-ip-address", "127.0.0.1", "--port", str(port), "--num-cpus", "2",
               "--include-dashboard", "false", "--disable-usage-stats", "--object-store-memory", str(10**8), "--temp-dir", temporary]  # fmt: skip
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True, env=os.environ | {"RAY_DISABLE_IMPORT_WARNING": "1"})
    try:
        deadline = time.monotonic() + PATIENCE
        while "Ray runtime started" not in (folder / "log").read_text():
            assert process.poll() is None and time.monotonic() < deadline, (folder / "log").read_text()
            time.sleep(0.1)
        yield f"127.0.0.1:{port}"
    finally:
        process.send_signal(signal.SIGTERM)  # it ends those that it has started
        process.wait(PATIENCE)
        shutil.rmtree(temporary, ignore_errors=True)


def inputs(dice, number):
    return {"prompt": dice.choice(("slow", "slow", "memory", "slow")), "seed": dice.randrange(100)}


def test_a_killed_workers_job_is_begun_again_with_its_seed(start, cluster, tmp_path):
    server = start(ray=cluster, devices=["auto"], workers=1)
    id = server.accepted("hold")
    server.until_running(id)
    (worker,) = (tmp_path / "workers").read_text().split()
    assert end_by_force(int(worker))
    deadline = time.monotonic() + PATIENCE
    while len(server.begun(id)) < 2:
        assert time.monotonic() < deadline, server.text
        time.sleep(0.05)
    (tmp_path / "release").touch()
    result = server.result(id)
    first, second = server.begun(id)
    assert first == second == result.json()["seed"] and server.client.get(result.json()["video"]["url"]).content == f"video {first}".encode()
    assert any("Begun again" in line["message"] for line in server.status(id).json()["logs"])


def test_every_accepted_job_ends_exactly_once(start, cluster, tmp_path):
    """None with 503: a job whose worker is gone is begun again."""
    settings = {"ray": cluster, "devices": ["auto"], "workers": 2}
    assert small_storm(start, tmp_path, settings, inputs) == {200, 499, 500}


def test_a_server_ends_though_a_worker_still_waits_for_room(start, cluster):
    server = start(ray=cluster, devices=["auto"], workers=4)
    server.until_logged("is ready", times=2)  # of four
    assert server.result(server.accepted("a boat")).status_code == 200
    server.process.terminate()
    assert server.process.wait(PATIENCE) == -signal.SIGTERM


def test_the_real_worker_gets_a_video_and_gives_one(cluster, tmp_path):
    command = [sys.executable, "-m", "animatediff_turbo", "serve", "--folder", str(tmp_path / "server"), "--port", "0", "--ray", cluster, "--workers", "1"]
    server = Server(tmp_path, command)
    try:
        small = {"num_frames": 2, "num_inference_steps": 1, "video_size": {"width": 64, "height": 64}, "seed": 5}
        made = server.result(server.accepted("a red circle moving right on a black background", **small)).json()
        assert made["seed"] == 5
        clip = server.client.get(made["video"]["url"]).content
        addresses = server.client.post("/storage/upload/initiate", json={"file_name": "a.mp4", "content_type": "video/mp4"}).json()
        assert server.client.put(addresses["upload_url"], content=clip).status_code == 200
        answer = server.submit("a blue star", V2V, video_url=addresses["file_url"], num_inference_steps=2, first_n_seconds=2)
        again = server.result(answer.json()["request_id"])
        assert again.status_code == 200, again.text
        (tmp_path / "clip.mp4").write_bytes(server.client.get(again.json()["video"]["url"]).content)
        assert decode(tmp_path / "clip.mp4").frames.shape[0] == 2
    finally:
        server.stop()


@pytest.mark.parametrize(("address", "sentence"), [("127.0.0.1:1", "There is no Ray cluster at 127.0.0.1:1"), ("ray://box", "use HOST:PORT")])
def test_no_cluster_is_said_in_a_sentence(tmp_path, address, sentence):
    command = [sys.executable, "-m", "animatediff_turbo", "serve", "--folder", str(tmp_path), "--port", "0", "--ray", address]
    found = subprocess.run(command, check=False, capture_output=True, text=True, timeout=PATIENCE)
    assert found.returncode != 0 and sentence in found.stderr and "Traceback" not in found.stderr
