"""The command line's server with the tiny model, as fal's own client, the page's cURL line and this pack's remote client use it."""

import io
import json
import os
import shlex
import shutil
import subprocess
import sys

import av
import pytest
import torch
import trustme
from serve_server import REQUESTS, T2V, V2V, Server

from animatediff_turbo.headless.tiny import score
from animatediff_turbo.video.encode import encode

PROMPT = "a red circle moving right on a black background"
SMALL = {"num_frames": 2, "num_inference_steps": 1, "video_size": {"width": 64, "height": 64}}
PYTHON = """
import json, sys
import fal_client
seen = []
def note(update):
    seen.append(type(update).__name__)
    seen.extend(line["message"] for line in getattr(update, "logs", None) or [])
endpoint, arguments = sys.argv[1], json.loads(sys.argv[2])
result = fal_client.subscribe(endpoint, arguments, with_logs=True, on_queue_update=note)
ran = fal_client.run(endpoint, arguments)
handle = fal_client.submit(endpoint, arguments | {"seed": 6, "num_frames": 16, "num_inference_steps": 8, "video_size": {"width": 256, "height": 256}})
handle.cancel()
try:
    handle.get()
except fal_client.FalClientHTTPError as error:
    cancelled = error.status_code
try:
    fal_client.run(endpoint, arguments | {"num_frames": 33})
except fal_client.FalClientHTTPError as error:
    refused = error.message
print(json.dumps({"result": result, "ran": ran, "seen": seen, "cancelled": cancelled, "refused": refused}))
"""
CURL = """curl --request POST \\
  --url {host}/fal-ai/fast-animatediff/turbo/text-to-video \\
  --header "Authorization: Key $FAL_KEY" \\
  --header "Content-Type: application/json" \\
  --data '{{
     "prompt": "{prompt}"
   }}' --silent --show-error --cacert {authority}"""


@pytest.fixture(scope="module")
def tls(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tls")
    authority = trustme.CA()
    certificate = authority.issue_cert("localhost", "127.0.0.1")
    certificate.cert_chain_pems[0].write_to_path(str(folder / "cert.pem"))
    certificate.private_key_pem.write_to_path(str(folder / "key.pem"))
    authority.cert_pem.write_to_path(str(folder / "ca.pem"))
    return folder


@pytest.fixture(scope="module")
def key(tls):
    """Made by the command line, which prints it."""
    made = [sys.executable, "-m", "animatediff_turbo", "serve", "--new-key", "alice", "--keys", str(tls / "keys.txt")]
    return subprocess.run(made, capture_output=True, text=True, check=True, timeout=60).stdout.strip()


@pytest.fixture(scope="module")
def served(tmp_path_factory, tls, key):
    folder = tmp_path_factory.mktemp("real")
    command = [
        sys.executable, "-m", "animatediff_turbo", "serve", "--port", "0", "--folder", str(folder / "server"), "--device", "cpu", "--keys", str(tls / "keys.txt"),
        "--certificate", str(tls / "cert.pem"), "--private-key", str(tls / "key.pem"), "--host", "127.0.0.1",
    ]  # fmt: skip
    running = Server(folder, command)
    running.client.headers["Authorization"] = f"Key {key}"
    running.until_logged("The worker on cpu is ready: Tiny Turbo")
    yield running
    running.stop()


@pytest.fixture
def environment(served, tls, key, tmp_path):
    host = served.address.rpartition("/")[2].replace("127.0.0.1", "localhost")
    plain = {name: value for name, value in os.environ.items() if not name.startswith(("FAL_", "ADT_"))}
    return plain | {
        "FAL_QUEUE_RUN_HOST": host, "FAL_RUN_HOST": f"{host}/run", "SSL_CERT_FILE": str(tls / "ca.pem"), "FAL_KEY": key, "FAL_HOME_DIR": str(tmp_path),
        "NO_PROXY": "127.0.0.1,localhost", "ADT_FAL_QUEUE_URL": f"https://{host}", "ADT_FAL_FOLDER": str(tmp_path / "journal"),
    }  # fmt: skip


def frames(content):
    with av.open(io.BytesIO(content)) as container:
        return torch.stack([torch.from_numpy(frame.to_ndarray(format="rgb24")) for frame in container.decode(video=0)]) / 255


def upload(served, content):
    addresses = served.client.post("/storage/upload/initiate").json()
    assert served.client.put(addresses["upload_url"], content=content).status_code == 200
    return addresses["file_url"]


def made(path, count, width, height, fps=8):
    return encode(torch.rand(1, height, width, 3).expand(count, -1, -1, -1), path, fps, "mp4").path.read_bytes()


def test_the_real_fal_client_has_jobs_done_over_tls(served, environment):
    command = [sys.executable, "-c", PYTHON, T2V.strip("/"), json.dumps({"prompt": PROMPT, "seed": 5} | SMALL)]
    process = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert process.returncode == 0, process.stderr[-3000:]
    found = json.loads(process.stdout.strip().splitlines()[-1])
    assert found["result"]["seed"] == 5 == found["ran"]["seed"] and found["ran"] == found["result"]
    assert {"Queued", "Completed"} <= set(found["seen"]) or {"InProgress", "Completed"} <= set(found["seen"])
    assert found["cancelled"] == 499 and found["refused"][0]["loc"] == ["body", "num_frames"]
    content = served.client.get(found["result"]["video"]["url"].replace("localhost", "127.0.0.1")).content
    assert frames(content).shape == (2, 64, 64, 3) and len(content) == found["result"]["video"]["file_size"]


@pytest.mark.skipif(shutil.which("curl") is None, reason="no curl")
def test_the_pages_curl_line_gives_a_video_of_its_prompt(served, environment, tls):
    """With the prompt alone the model's own size, length and steps are used."""
    line = CURL.format(host=f"{environment['ADT_FAL_QUEUE_URL']}/run", prompt=PROMPT, authority=shlex.quote(str(tls / "ca.pem")))
    process = subprocess.run(line, shell=True, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert process.returncode == 0, process.stderr
    body = json.loads(process.stdout)
    seen = score.judge(frames(served.client.get(body["video"]["url"].replace("localhost", "127.0.0.1")).content))
    assert (seen.shape, seen.colour, seen.direction, seen.background) == ("circle", "red", "right", "black") and 0 <= body["seed"] < 2**31


def test_this_packs_remote_client_has_both_endpoints(served, environment, tmp_path):
    """What the remote nodes do, from the command line."""
    small = ["--seed", "9", "--num-inference-steps", "1", "--guidance-scale", "1", "--quiet"]
    for number, arguments in enumerate((["--num-frames", "8", "--width", "64", "--height", "64"], ["--video", "0.mp4", "--strength", "0.5"])):
        command = [sys.executable, "-m", "animatediff_turbo", PROMPT, "--remote", "-o", f"{number}.mp4", *small, *arguments]
        process = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
        assert process.returncode == 0, process.stderr
    assert frames((tmp_path / "0.mp4").read_bytes()).shape == (8, 64, 64, 3)
    assert len(frames((tmp_path / "1.mp4").read_bytes())) >= 8


def test_a_job_is_stopped_within_a_step(served):
    id = served.accepted(PROMPT, num_frames=16, num_inference_steps=8, video_size={"width": 256, "height": 256})
    served.until_running(id)
    assert served.cancel(id).status_code == 202
    assert served.result(id).status_code == 499 and len(served.status(id).json()["logs"]) <= 3


@pytest.mark.parametrize(
    ("inputs", "sentence"),
    [
        ({"prompt": "(" * 4000 + "a" + ")" * 4000}, "The brackets are nested too deep"), ({"num_inference_steps": 9}, "use 1 to 8"),
        ({"prompt": "embedding:x"}, "embedding:"),
    ],
)  # fmt: skip
def test_what_the_model_can_not_do_is_422_with_a_sentence_and_the_worker_goes_on(served, inputs, sentence):
    result = served.result(served.accepted(**{"prompt": PROMPT} | SMALL | inputs))
    assert result.status_code == 422 and sentence in result.json()["detail"][0]["msg"]
    assert served.result(served.accepted(PROMPT, **SMALL)).status_code == 200


@pytest.mark.parametrize(
    ("count", "width", "height", "sentence"), [(1, 4224, 64, "4224x64 pixels"), (3700, 16, 16, "3601 frames or more"), (0, 0, 0, "not a readable video")]
)
def test_videos_that_are_none_or_blow_up_are_refused(served, tmp_path, count, width, height, sentence):
    content = made(tmp_path / "in.mp4", count, width, height) if count else b"\x00\x00\x00\x18ftypmp42 is all there is"
    answer = served.submit(PROMPT, V2V, video_url=upload(served, content), num_inference_steps=1)
    result = served.result(answer.json()["request_id"])
    assert result.status_code == 422 and result.json()["detail"][0]["loc"] == ["body", "video_url"] and sentence in result.json()["detail"][0]["msg"]
    assert str(served.folder) not in result.text


def test_what_one_may_not_see_is_in_no_log(served, key):
    served.client.get(f"{REQUESTS}/{'0' * 32}")
    assert key not in served.text and PROMPT not in served.text and "made-" not in served.text and "Traceback" not in served.text


def test_the_command_line_explains_itself():
    shown = subprocess.run([sys.executable, "-m", "animatediff_turbo", "serve", "--help"], capture_output=True, text=True, check=True, timeout=60).stdout
    assert "--new-key" in shown and "FAL_QUEUE_RUN_HOST" in shown
    refused = subprocess.run([sys.executable, "-m", "animatediff_turbo", "serve", "--host", "0.0.0.0"], capture_output=True, text=True, check=False, timeout=60)
    assert refused.returncode == 1 and refused.stderr.startswith("--host 0.0.0.0 would let everybody")
