"""Text to Video (fal.ai) in a real ComfyUI against fal's protocol on loopback, and its local sibling."""

import json
import threading
import time

import av
import pytest
import server as comfy_server
import synthetic
import torch
from convert_workflow import to_prompt
from fal_server import KEY, FalServer
from graphs import node, turbo

from animatediff_turbo import schema
from animatediff_turbo.video.encode import encode

INPUTS = {
    "prompt": "a boat", "negative_prompt": "", "num_frames": 16, "num_inference_steps": 4, "guidance_scale": 1.0, "seed": 5, "fps": 8, "video_size": "square",
    "width": 512, "height": 512,
}  # fmt: skip


@pytest.fixture(scope="module")
def fal(tmp_path_factory):
    path = tmp_path_factory.mktemp("fal") / "clip.mp4"
    encode(torch.rand(16, 64, 64, 3), path, 8, "mp4")
    server = FalServer(path.read_bytes())
    yield server
    server.stop()


def start(fal, base, *options):
    path = comfy_server.find()
    if path is None:
        pytest.skip("no ComfyUI: set COMFYUI_PATH to a checkout, or put one at ~/comfy/ComfyUI")
    return comfy_server.Server(path, base, *options, api_nodes=True, environment={"ADT_FAL_QUEUE_URL": fal.address, "FAL_KEY": KEY})


@pytest.fixture(scope="module")
def remote(fal, tmp_path_factory):
    server = start(fal, tmp_path_factory.mktemp("remote"))
    yield server
    server.stop()


def graph(nodes=1, **changes):
    result = {}
    for number in range(nodes):
        result[f"1{number}"] = turbo("FalTextToVideo", **INPUTS | {"timeout_minutes": 10, "if_lost": "stop"} | changes)
        result[f"2{number}"] = turbo(
            "CombineVideo", images=[f"1{number}", 0], fps=8.0, format="mp4", quality=80, pingpong=False, loop_count=0, filename_prefix="remote", save=True
        )
    return result


def test_it_ends_in_a_video_with_progress_on_the_websocket(fal, remote):
    fal.reset()
    prompt = graph()
    prompt["30"] = node("PreviewAny", source=["10", 2])
    prompt["31"] = node("PreviewAny", source=["10", 4])
    run = remote.run(prompt)
    assert not run.error and fal.posts == 1
    (video,) = run.output("20")["images"]
    with av.open(str(remote.base / "output" / video["filename"])) as container:
        assert len(list(container.decode(video=0))) == 16
    texts = run.texts["10"]
    assert texts[0] == "Sending" and any(text.startswith("Queued at fal.ai (position 0)") for text in texts) and any("step 2/4" in text for text in texts)
    assert [data["value"] for data in run.of("progress") if data["node"] == "10"][-1] == 2
    assert run.output("30")["text"] == ["5"] and run.output("31")["text"][0].startswith("request-")


def test_the_bundled_workflow_ends_in_a_video(fal, remote):
    fal.reset()
    ui = json.loads((comfy_server.ROOT / "workflows" / "Text to video on fal.json").read_text(encoding="utf-8"))
    run = remote.run(to_prompt(ui, remote.get("/object_info")), ui)
    assert not run.error and run.output("10")["images"] and fal.posts == 1
    (job,) = fal.jobs.values()
    assert job.arguments["negative_prompt"] == schema.NEGATIVE_PROMPT and (job.arguments["num_inference_steps"], job.arguments["guidance_scale"]) == (8, 2.0)


def test_video_to_video_sends_pictures_alone_once(fal, remote, tmp_path):
    fal.reset()
    (remote.base / "input").mkdir(exist_ok=True)
    tone = {"waveform": torch.sin(torch.arange(200_000) / 9)[None, None], "sample_rate": 48_000}
    encode(torch.rand(40, 64, 96, 3), remote.base / "input" / "mine.webm", 10, "webm", audio=tone, metadata={"workflow": {"secret": "SECRETPLACE"}})
    inputs = {"prompt": "a boat", "negative_prompt": "", "num_inference_steps": 12, "guidance_scale": 2.0, "seed": 5, "fps": 8, "first_n_seconds": 3, "strength": 0.7}
    prompt = {"1": node("LoadVideo", file="mine.webm"), "10": turbo("FalVideoToVideo", video=["1", 0], timeout_minutes=10, if_lost="stop", **inputs)}
    prompt["2"] = node("SaveVideo", video=["10", 1], filename_prefix="v2v", format="auto", codec="auto")
    assert not remote.run(prompt).error
    (sent,) = fal.uploads.values()
    (tmp_path / "sent.mp4").write_bytes(sent)
    with av.open(str(tmp_path / "sent.mp4")) as container:
        assert len(list(container.decode(video=0))) == 30 and not container.streams.audio and b"SECRETPLACE" not in sent
    (job,) = fal.jobs.values()
    assert {name: job.arguments[name] for name in inputs} == inputs and job.arguments["video_url"].startswith(fal.address)
    prompt["10"]["inputs"]["timeout_minutes"] = 9  # so that ComfyUI asks the node again
    assert not remote.run(prompt).error and fal.posts == 1


def test_a_second_queue_and_another_server_on_the_same_folder_pay_nothing(fal, tmp_path):
    fal.reset()
    for _ in range(2):
        server = start(fal, tmp_path, "--cache-none")
        try:
            for _ in range(2):
                run = server.run(graph(seed=77))
                assert not run.error
        finally:
            server.stop()
    assert fal.posts == 1 and run.texts["10"] == ["From cache, no charge"]


def test_two_equal_nodes_are_one_job_and_two_seeds_are_two(fal, remote):
    fal.reset()
    assert not remote.run(graph(nodes=2, seed=21)).error and fal.posts == 1
    prompt = graph(nodes=2, seed=22)
    prompt["11"]["inputs"]["seed"] = 23
    assert not remote.run(prompt).error and fal.posts == 3


def test_a_killed_comfyui_collects_its_job_after_a_restart(fal, tmp_path):
    fal.reset(running=10**6)
    server = start(fal, tmp_path)
    asked = threading.Thread(target=lambda: server.post("/prompt", {"prompt": graph(seed=31)}))
    asked.start()
    deadline = time.monotonic() + 60
    while not fal.count("GET", "/status") and time.monotonic() < deadline:
        time.sleep(0.05)
    server.kill()
    asked.join()
    fal.does.running = 1
    server = start(fal, tmp_path)
    try:
        assert not server.run(graph(seed=31)).error
    finally:
        server.stop()
    assert fal.posts == 1 and fal.count("PUT") == 0


def test_an_interrupt_cancels_the_job_and_is_an_interruption(fal, remote):
    fal.reset(running=10**6)

    def during(kind, data):
        if kind == "progress" and data["node"] == "10":
            remote.post("/interrupt", {})

    run = remote.run(graph(seed=41), during=during)
    assert run.of("execution_interrupted") and not run.error
    assert [job.cancelled for job in fal.jobs.values()] == [True]


def test_an_interrupt_of_a_list_starts_no_further_job(fal, remote):
    fal.reset(running=10**6)
    prompt = graph(seed=["40", 0]) | {"40": node("Testing_Numbers", first=200, count=6)}

    def during(kind, data):
        if kind == "progress" and data["node"] == "10":
            remote.post("/interrupt", {})

    run = remote.run(prompt, during=during)
    assert run.of("execution_interrupted") and not run.error
    assert fal.posts == 2 and all(job.cancelled for job in fal.jobs.values())


def test_a_list_of_seeds_is_a_list_of_clips(fal, remote):
    fal.reset()
    prompt = graph(seed=["40", 0]) | {"40": node("Testing_Numbers", first=300, count=3)}
    run = remote.run(prompt)
    assert not run.error and fal.posts == 3 and sorted(job.arguments["seed"] for job in fal.jobs.values()) == [300, 301, 302]


@pytest.mark.parametrize(("hold", "seen"), [(1.0, "POST"), (0.0, "GET")], ids=["while it is being sent", "while it runs"])
def test_another_nodes_failure_cancels_the_job(fal, remote, tmp_path, hold, seen):
    fal.reset(running=10**6, hold_submit=hold)
    failing = tmp_path / "fail"

    def watch():
        deadline = time.monotonic() + 30
        while not fal.count(seen) and time.monotonic() < deadline:
            time.sleep(0.01)
        failing.touch()

    watcher = threading.Thread(target=watch)
    watcher.start()
    failure = {"40": node("Testing_Fail", path=str(failing)), "41": node("PreviewAny", source=["40", 0])}
    run = remote.run(graph(seed=42 + int(hold)) | failure)
    watcher.join()
    assert run.error == "failed on purpose" and fal.posts == 1
    deadline = time.monotonic() + 10
    while not fal.count("PUT") and time.monotonic() < deadline:
        time.sleep(0.05)
    assert [job.cancelled for job in fal.jobs.values()] == [True]


def test_more_jobs_than_a_run_may_start_are_refused(fal, remote):
    fal.reset()
    prompt = graph(nodes=9)
    for number in range(9):
        prompt[f"1{number}"]["inputs"]["seed"] = 100 + number
    assert "This run would send more than 8 paid jobs" in remote.run(prompt).error and fal.posts <= 8


def test_what_fal_says_is_one_sentence(fal, remote):
    fal.reset(submit=[(401, {"detail": "No user found for Key ID and Secret"})])
    error = remote.run(graph(seed=51)).error
    assert error == "AnimateDiff Turbo (fal.ai): fal.ai does not know this key. Check FAL_KEY: it has the form key_id:key_secret. Nothing was generated."
    assert "prompt must" not in error and "The prompt is empty" in remote.run(graph(prompt=" ")).error


def test_switched_off_means_off(fal, comfy):
    fal.reset()
    assert "Remote generation is switched off" in comfy.run(graph(seed=61)).error and fal.posts == 0


def test_the_key_is_nowhere(fal, remote):
    fal.reset(submit=[(400, {"detail": f"you said {KEY}"})])
    run = remote.run(graph(seed=71), workflow={"nodes": []})
    assert "***" in run.error
    everything = [json.dumps(remote.get(path)) for path in ("/history", "/object_info")] + [remote.log, json.dumps(run.events)]
    everything += [path.read_bytes().decode("latin-1") for path in remote.base.rglob("*") if path.is_file() and not path.is_symlink() and "custom_nodes" not in path.parts]
    assert not [text for text in everything if KEY in text or "test-key-secret" in text]
    assert not any("Authorization" in headers for _, path, headers in fal.requests if path.startswith("/files"))


def test_both_nodes_have_the_endpoints_inputs_in_one_order(comfy):
    info = comfy.get("/object_info")
    local, far = (info[f"AnimateDiffTurbo_{name}"] for name in ("TextToVideo", "FalTextToVideo"))
    shared = list(INPUTS)
    assert local["input_order"]["required"][: len(shared)] == far["input_order"]["required"][: len(shared)] == shared
    assert all(local["input"]["required"][name] == far["input"]["required"][name] for name in shared)
    assert far["api_node"] is not True and local["output"] == far["output"][:3]


def test_the_local_node_renders_with_the_packs_nodes(comfy):
    synthetic.install(comfy.base, comfy.path)
    inputs = INPUTS | {"num_frames": 12, "video_size": "custom", "width": 64, "height": 64, "num_inference_steps": 2}
    models = {"checkpoint": "v1-5-pruned-emaonly-fp16.safetensors", "adapter": "AnimateLCM_sd15_t2v.ckpt", "lora": "AnimateLCM_sd15_t2v_lora.safetensors", "lora_strength": 0.8}
    prompt = {"1": turbo("TextToVideo", **inputs, **models), "2": node("SaveVideo", video=["1", 1], filename_prefix="local", format="auto", codec="auto")}
    prompt["3"] = node("PreviewAny", source=["1", 2])
    run = comfy.run(prompt)
    assert not run.error and run.output("3")["text"] == ["5"]
    (video,) = run.output("2")["images"]
    with av.open(str(comfy.base / "output" / video["filename"])) as container:
        frames = list(container.decode(video=0))
        assert len(frames) == 12 and (frames[0].width, container.streams.video[0].average_rate) == (64, 8)
    assert any("AnimateLCM: 12 frames" in text for text in run.texts["1"])
    prompt["1"]["inputs"]["fps"] = 12
    again = comfy.run(prompt)
    assert not again.error and not any("TurboSampler" in str(each) for each in again.executed)
