"""fal's queue protocol, with a worker that has no model."""

import json
import re

import httpx
import pytest
from serve_server import REQUESTS, T2V, V2V

LINKS = {"response_url": "", "status_url": "/status", "cancel_url": "/cancel"}


@pytest.fixture
def released(server):
    (server.notes / "release").unlink(missing_ok=True)
    yield server
    (server.notes / "release").touch()


def release(server):
    (server.notes / "release").touch()


def test_a_job_from_its_acceptance_to_its_video(server):
    answer = server.submit(seed=7)
    body = answer.json()
    assert answer.status_code == 200 and body["status"] == "IN_QUEUE" and body["queue_position"] == 0 and answer.headers["x-fal-request-id"] == body["request_id"]
    assert re.fullmatch("[A-Za-z0-9_-]{8,128}", body["request_id"])
    assert {name: body[name] for name in LINKS} == {name: f"{server.address}{REQUESTS}/{body['request_id']}{path}" for name, path in LINKS.items()}
    status = server.until(body["request_id"], "COMPLETED")
    assert [line["message"].rpartition(" ")[2] for line in status["logs"]] == ["1/2", "2/2"] and status["metrics"]["inference_time"] >= 0
    assert set(status["logs"][0]) == {"message", "level", "source", "timestamp"} and "error" not in status
    result = server.result(body["request_id"])
    video = result.json()["video"]
    assert result.status_code == 200 and result.json()["seed"] == 7 and result.headers["x-fal-request-id"] == body["request_id"]
    file = server.client.get(video["url"])
    assert (file.content, file.headers["content-type"], video["file_size"]) == (b"video 7", "video/mp4", 7)
    assert server.client.get(video["url"], headers={"Range": "bytes=0-4"}).content == b"video"
    assert server.cancel(body["request_id"]).json() == {"status": "ALREADY_COMPLETED"} and server.cancel(body["request_id"]).status_code == 400


def test_without_a_seed_each_job_has_its_own(server):
    seeds = {server.result(server.accepted()).json()["seed"] for _ in range(3)}
    assert len(seeds) == 3 and all(0 <= seed < 2**31 for seed in seeds)


def test_waiting_and_running_jobs_say_so_and_are_cancelled(released):
    running, waiting = released.accepted("hold 1"), released.accepted("hold 2")
    released.until_running(running)
    answer = released.status(running)
    assert answer.status_code == 202 and answer.json()["status"] == "IN_PROGRESS" and "1/2" in answer.json()["logs"][0]["message"]
    assert released.client.get(f"{REQUESTS}/{running}/status").json()["logs"] is None
    queued = released.status(waiting)
    assert queued.status_code == 202 and queued.json()["queue_position"] == 0 and queued.json()["status"] == "IN_QUEUE"
    early = released.client.get(f"{REQUESTS}/{running}")
    assert early.status_code == 400 and early.json()["detail"] == "Request is still in progress"
    for id in (waiting, running, waiting):
        cancelled = released.cancel(id)
        assert cancelled.status_code == 202 and cancelled.json() == {"status": "CANCELLATION_REQUESTED"}
    assert released.until(running, "COMPLETED")["error_type"] == "client_cancelled" and len(released.begun(running)) == 1 and not released.begun(waiting)
    result = released.result(waiting)
    assert result.status_code == 499 and result.json()["error_type"] == "client_cancelled" == result.headers["x-fal-error-type"]


def test_a_cancel_beats_the_result_that_comes_after_it(released):
    id = released.accepted("stubborn")
    released.until_running(id)
    assert released.cancel(id).status_code == 202
    release(released)
    assert released.result(id).status_code == 499
    assert len(list((released.folder / "files").glob("made-*"))) == sum(1 for _ in set(finished(released)))


def finished(server):
    """The names of the files that jobs have, by asking for each that was begun."""
    for line in (server.notes / "begun").read_text().splitlines():
        result = server.client.get(f"{REQUESTS}/{line.split()[0]}")
        if result.status_code == 200:
            yield result.json()["video"]["file_name"]


def test_the_stream_tells_every_change_until_the_end(released):
    id = released.accepted("hold")
    seen = []
    with released.client.stream("GET", f"{REQUESTS}/{id}/status/stream", params={"logs": 1}) as stream:
        assert stream.headers["content-type"].startswith("text/event-stream")
        for line in filter(None, stream.iter_lines()):
            seen.append(json.loads(line.removeprefix("data: ")))
            if seen[-1]["logs"]:
                release(released)
    assert seen[-1]["status"] == "COMPLETED" and len(seen[-1]["logs"]) == 2
    order = ["IN_QUEUE", "IN_PROGRESS", "COMPLETED"]
    assert [each["status"] for each in seen] == sorted((each["status"] for each in seen), key=order.index)


def test_the_synchronous_call_answers_with_the_result(server):
    answer = server.submit("a boat", f"/run{T2V}", seed=11)
    assert answer.status_code == 200 and answer.json()["seed"] == 11 and server.client.get(answer.json()["video"]["url"]).content == b"video 11"
    under_fals_name = server.submit("a boat", seed=12, headers={"Host": "fal.run"})
    assert under_fals_name.json()["seed"] == 12 and under_fals_name.json()["video"]["url"].startswith("http://fal.run/files/")
    assert server.submit("a boat", seed=12, headers={"Host": "queue.fal.run"}).json()["status"] == "IN_QUEUE"


def test_a_job_that_nobody_waits_for_any_more_is_cancelled(released):
    before = set((released.notes / "begun").read_text().split())
    with pytest.raises(httpx.ReadTimeout):
        released.client.post(f"/run{T2V}", json={"prompt": "hold"}, timeout=1.0)
    (id,) = {word for word in set((released.notes / "begun").read_text().split()) - before if len(word) == 32}
    assert released.until(id, "COMPLETED")["error_type"] == "client_cancelled"


def test_equal_requests_are_rendered_once(server):
    first = server.accepted("equal", seed=5)
    video = server.result(first).json()["video"]["url"]
    again = server.submit("equal", seed=5).json()["request_id"]
    assert again != first and server.result(again).json()["video"]["url"] == video and not server.begun(again)
    assert server.status(again).json()["logs"][0]["message"] == "Answered from an equal job that is done."
    other = server.accepted("equal", seed=5, fps=9)
    assert server.result(other).json()["video"]["url"] != video and server.begun(other) == [5]


def test_a_job_that_does_not_start_in_time_is_dropped(released):
    running = released.accepted("hold first")
    late = released.submit("late", headers={"X-Fal-Request-Timeout": "0.2"}).json()["request_id"]
    result = released.result(late)
    assert result.status_code == 504 and result.json()["error_type"] == "request_timeout" and result.headers["x-fal-request-timeout-type"] == "user"
    assert not released.begun(late) and released.status(running).json()["status"] == "IN_PROGRESS"
    assert released.submit("late", headers={"X-Fal-Request-Timeout": "soon"}).status_code == 400
    released.cancel(running)


def test_webhooks_are_refused_rather_than_forgotten(server):
    assert server.client.post(T2V, params={"fal_webhook": "https://example.com"}, json={"prompt": "a"}).status_code == 400


def test_low_priority_comes_last(released):
    running = released.accepted("hold now")
    low = released.submit("hold low", headers={"X-Fal-Queue-Priority": "low"}).json()["request_id"]
    normal = released.accepted("hold normal")
    assert [released.status(id).json()["queue_position"] for id in (low, normal)] == [1, 0]
    for id in (low, normal, running):
        released.cancel(id)


@pytest.mark.parametrize(
    ("inputs", "place", "kind"),
    [
        ({"num_frames": 33}, "num_frames", "less_than_equal"), ({"num_frames": 0}, "num_frames", "greater_than_equal"),
        ({"num_frames": 1.5}, "num_frames", "int_from_float"), ({"num_frames": "16"}, "num_frames", "number_type"),
        ({"num_frames": True}, "num_frames", "number_type"), ({"num_frames": None}, "num_frames", "int_type"),
        ({"guidance_scale": 20.5}, "guidance_scale", "less_than_equal"), ({"guidance_scale": [1]}, "guidance_scale", "float_type"),
        ({"seed": -1}, "seed", "greater_than_equal"), ({"seed": 2**31}, "seed", "less_than_equal"), ({"fps": 17}, "fps", "less_than_equal"),
        ({"prompt": None}, "prompt", "string_type"), ({"prompt": "x" * 10_001}, "prompt", "string_too_long"),
        ({"video_size": "huge"}, "video_size", "enum"), ({"video_size": {"width": 100}}, "video_size", "multiple_of"),
    ],
)  # fmt: skip
def test_a_faulty_field_is_named_in_fals_shape_and_not_repeated(server, inputs, place, kind):
    answer = server.client.post(T2V, json={"prompt": "a boat"} | inputs)
    assert answer.status_code == 422 and set(answer.json()) == {"detail"} and answer.headers["x-fal-billable-units"] == "0"
    (fault, *_) = [each for each in answer.json()["detail"] if each["type"] == kind]
    assert fault["loc"][:2] == ["body", place] and fault["msg"] and "input" not in fault


def test_a_missing_prompt_and_broken_json_are_faults_too(server):
    assert server.client.post(T2V, json={}).json()["detail"] == [{"loc": ["body", "prompt"], "msg": "Field required", "type": "missing"}]
    for body in (b"{", b"[]", b"1", b"\xff", b'{"prompt": "a", "guidance_scale": NaN}', b'{"prompt": "\\ud800"}', b"[" * 100_000, b'{"prompt": "a", "seed": ' + b"9" * 5000 + b"}"):
        answer = server.client.post(T2V, content=body, headers={"Content-Type": "application/json"})
        assert answer.status_code in (400, 422) and "detail" in answer.json(), body[:40]


def test_seed_null_is_no_seed_and_whole_floats_are_whole(server):
    assert server.submit(seed=None, num_frames=16.0).status_code == 200


def test_what_costs_too_much_is_refused(server):
    answer = server.submit(num_frames=32, num_inference_steps=50, video_size="square_hd")
    assert answer.status_code == 422 and "this server takes 419430400; use a smaller size" in answer.json()["detail"][0]["msg"]
    answer = server.client.post(V2V, json={"prompt": "a", "video_url": f"{server.address}/files/sent-{'a' * 32}.mp4"})
    assert answer.status_code == 422 and answer.json()["detail"][0]["loc"] == ["body", "video_url"]


def test_a_file_is_uploaded_once_and_found_at_its_address(server):
    addresses = server.client.post("/storage/upload/initiate", params={"storage_type": "gcs"}, json={"content_type": "video/mp4", "file_name": "../../x.mp4"}).json()
    assert server.client.get(addresses["file_url"]).status_code == 404
    assert server.client.put(addresses["upload_url"], content=b"a video").status_code == 200
    assert server.client.get(addresses["file_url"]).content == b"a video"
    assert server.client.put(addresses["upload_url"], content=b"another").status_code == 409
    assert server.client.put(addresses["upload_url"].partition("?")[0] + "?token=wrong", content=b"x").status_code == 403
    job = server.client.post(V2V, json={"prompt": "a", "video_url": addresses["file_url"], "seed": 1})
    assert job.status_code == 200 and server.result(job.json()["request_id"]).json()["seed"] == 1
    for url in ("http://example.com/x.mp4", "file:///etc/passwd", "", "http://[", addresses["file_url"] + "/..", "http://127.0.0.1:1/files/x.mp4"):
        assert server.client.post(V2V, json={"prompt": "a", "video_url": url}).status_code == 422


def test_what_is_not_there_is_404_in_fals_shape(server):
    for method, path in (("GET", "/nothing"), ("GET", f"{REQUESTS}/{'0' * 32}"), ("GET", f"{REQUESTS}/{'0' * 32}/status"), ("GET", f"{REQUESTS}/{'0' * 32}/status/stream")):
        answer = server.client.request(method, path)
        assert answer.status_code == 404 and "detail" in answer.json()
    answer = server.cancel("0" * 32)
    assert answer.status_code == 404 and answer.json() == {"status": "NOT_FOUND"}
    assert server.client.get(T2V).status_code == 405
