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
import server as comfy_server
import torch
import trustme
from graphs import node, turbo
from serve_server import REQUESTS, T2V, V2V, Server

from animatediff_turbo.headless.pipeline import Request
from animatediff_turbo.headless.tiny import evaluate, score
from animatediff_turbo.headless.tiny.world import FRAMES, SIDE
from animatediff_turbo.motion_modules.config import TINY
from animatediff_turbo.serve import worker
from animatediff_turbo.video.encode import encode
from animatediff_turbo.weights import TINY_BASE

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
NODE = """
import { createFalClient } from "@fal-ai/client";
const [endpoint, body, address] = process.argv.slice(2);
const moved = async request => ({ ...request, url: request.url.replace("https://queue.fal.run", address) });
const client = createFalClient({ credentials: process.env.FAL_KEY, requestMiddleware: moved });
const seen = [], input = JSON.parse(body);
const onQueueUpdate = update => seen.push(update.status, ...(update.logs || []).map(line => line.message));
const polled = await client.subscribe(endpoint, { input, logs: true, onQueueUpdate });
const streamed = await client.subscribe(endpoint, { input: { ...input, seed: 22 }, mode: "streaming", logs: true, onQueueUpdate });
const { request_id } = await client.queue.submit(endpoint, { input: { ...input, seed: 23, num_frames: 32 } });
await client.queue.cancel(endpoint, { requestId: request_id });
const refused = await client.subscribe(endpoint, { input: { ...input, num_frames: 33 } }).catch(error => error.fieldErrors.map(each => each.loc.join(".")));
console.log(JSON.stringify({ polled: polled.data, id: polled.requestId, streamed: streamed.data, seen, refused }));
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


def test_the_real_javascript_client_has_jobs_done(served, environment, tls, tmp_path):
    npm, node = shutil.which("npm"), shutil.which("node")
    if not (npm and node):
        pytest.skip("no npm: fal's JavaScript client is not tried")
    installed = subprocess.run([npm, "install", "--silent", "--no-audit", "--no-fund", "@fal-ai/client@1"], cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False)
    if installed.returncode:
        pytest.skip(f"npm could not install fal's JavaScript client: {installed.stderr.strip()[-200:]}")
    (tmp_path / "client.mjs").write_text(NODE)
    command = [node, "client.mjs", T2V.strip("/"), json.dumps({"prompt": PROMPT, "seed": 21} | SMALL), environment["ADT_FAL_QUEUE_URL"]]
    trusting = environment | {"NODE_EXTRA_CA_CERTS": str(tls / "ca.pem")}
    process = subprocess.run(command, env=trusting, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
    assert process.returncode == 0, process.stderr[-3000:]
    found = json.loads(process.stdout.strip().splitlines()[-1])
    assert (found["polled"]["seed"], found["streamed"]["seed"], found["refused"]) == (21, 22, ["body.num_frames"]) and "COMPLETED" in found["seen"]
    assert served.status(found["id"]).json()["status"] == "COMPLETED"
    assert frames(served.client.get(found["streamed"]["video"]["url"].replace("localhost", "127.0.0.1")).content).shape == (2, 64, 64, 3)


@pytest.mark.skipif(shutil.which("curl") is None, reason="no curl")
def test_the_pages_curl_line_gives_a_video_of_its_prompt(served, environment, tls):
    """With the prompt alone the model's own size, length and steps are used, and the seed that is told makes the same clip elsewhere."""
    line = CURL.format(host=f"{environment['ADT_FAL_QUEUE_URL']}/run", prompt=PROMPT, authority=shlex.quote(str(tls / "ca.pem")))
    process = subprocess.run(line, shell=True, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert process.returncode == 0, process.stderr
    body = json.loads(process.stdout)
    clip = frames(served.client.get(body["video"]["url"].replace("localhost", "127.0.0.1")).content)
    seen = score.judge(clip)
    assert (seen.shape, seen.colour, seen.background) == ("circle", "red", "black") and 0 <= body["seed"] < 2**31
    here = evaluate.stacks(TINY_BASE.parent)(evaluate.Row())
    same = here(Request(PROMPT, "", SIDE, SIDE, FRAMES, TINY.steps, TINY.guidance, body["seed"]))
    assert float((clip - same).square().mean()) < 4e-4  # H.264 makes 0.00014 of it; clips of two seeds are 0.001 to 0.03 apart


def test_this_packs_remote_client_has_both_endpoints(served, environment, tmp_path):
    """What the remote nodes do, from the command line."""
    small = ["--seed", "9", "--num-inference-steps", "1", "--guidance-scale", "1", "--quiet"]
    for number, arguments in enumerate((["--num-frames", "8", "--width", "64", "--height", "64"], ["--video", "0.mp4", "--strength", "0.5"])):
        command = [sys.executable, "-m", "animatediff_turbo", PROMPT, "--remote", "-o", f"{number}.mp4", *small, *arguments]
        process = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
        assert process.returncode == 0, process.stderr
    assert frames((tmp_path / "0.mp4").read_bytes()).shape == (8, 64, 64, 3)
    assert len(frames((tmp_path / "1.mp4").read_bytes())) >= 8


def test_the_remote_node_in_a_real_comfyui_has_a_video_made_here(served, environment, tmp_path):
    path = comfy_server.find()
    if path is None:
        pytest.skip("no ComfyUI: set COMFYUI_PATH to a checkout, or put one at ~/comfy/ComfyUI")
    comfy = comfy_server.Server(path, tmp_path / "comfy", api_nodes=True, environment=environment)
    try:
        inputs = {"negative_prompt": "", "num_frames": 16, "num_inference_steps": 4, "guidance_scale": 1.0, "seed": 5, "fps": 8, "video_size": "custom", "width": 128, "height": 128}
        graph = {"1": turbo("FalTextToVideo", prompt=PROMPT, timeout_minutes=10, if_lost="stop", **inputs), "3": node("PreviewAny", source=["1", 2])}
        graph["2"] = node("SaveVideo", video=["1", 1], filename_prefix="remote", format="auto", codec="auto")
        run = comfy.run(graph)
        assert not run.error and run.output("3")["text"] == ["5"] and any("step" in text or "Queued" in text for text in run.texts["1"])
        (video,) = run.output("2")["images"]
        seen = score.judge(frames((comfy.base / "output" / video["filename"]).read_bytes()))
    finally:
        comfy.stop()
    assert (seen.shape, seen.colour, seen.direction, seen.background) == ("circle", "red", "right", "black")


def test_a_job_is_stopped_within_a_step(served):
    id = served.accepted(PROMPT, num_frames=16, num_inference_steps=8, video_size={"width": 192, "height": 192})
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


def test_a_family_that_is_none_is_said_with_all_there_are():
    with pytest.raises(ValueError, match="--family is 'none'; use auto or one of: AnimateDiff-Lightning"):
        worker.models({"device": "cpu", "models": {"family": "none"}})
    found = worker.models({"device": "cpu", "models": {"checkpoint": "a", "loras": [["b", 0.5]]}})
    assert str(found.checkpoint) == "a" and found.loras[0].strength == 0.5
