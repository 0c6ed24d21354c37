"""Video to video: the input at a public address, put there with the same care."""

import asyncio
from dataclasses import replace

import pytest
from fal_helpers import run
from fal_server import KEY
from yarl import URL

from animatediff_turbo.fal import config, errors, guard, request, upload
from animatediff_turbo.fal.client import connect
from animatediff_turbo.fal.waiting import Clock, Patience

VALUES = {"prompt": "a boat", "negative_prompt": "", "num_inference_steps": 12, "guidance_scale": 2.0, "seed": 5, "fps": 8, "first_n_seconds": 3, "strength": 0.7}


def asked(content=b"video", **changes):
    return request.video_to_video(**VALUES | changes, video=request.Upload(content, "video/mp4", ".mp4"))


def test_the_file_is_uploaded_and_named_and_the_key_does_not_go_with_it(server, settings):
    found = run(settings, asked())
    assert found.seed == 5 and list(server.uploads.values()) == [b"video"]
    (name,) = server.uploads
    assert server.jobs[found.request_id].arguments == VALUES | {"video_url": f"{server.address}/files/{name}"}
    assert [path for method, path, _ in server.requests if method == "POST"] == ["/storage/upload/initiate", "/fal-ai/fast-animatediff/turbo/video-to-video"]
    (put,) = [headers for method, path, headers in server.requests if path.startswith("/put/")]
    assert "Authorization" not in put and KEY not in str(put) and put["Content-Type"] == "video/mp4"


def test_the_address_that_fal_gives_is_given(server, settings):
    async def put():
        patience = Patience(Clock(), lambda: False)
        file = request.Upload(b"video", "video/webm", ".webm")
        async with connect(settings, config.Key(KEY), patience) as queue:
            return await upload.put(file, queue, guard.session, settings, patience)

    address = asyncio.run(put())
    assert address.startswith(f"{server.address}/files/") and address.endswith("-video.webm") and server.posts == 0


def test_the_same_file_is_paid_for_once_and_another_is_another(server, settings):
    run(settings, asked())
    assert run(settings, asked()).cached and server.posts == 1 and len(server.uploads) == 1
    run(settings, asked(b"another"))
    assert server.posts == 2


BAD = {
    "refused": ({"storage": [(401, {"detail": "No user"})]}, "K3", "does not know this key"),
    "no addresses": ({"storage": [(200, {"upload_url": 3})]}, "U", "gave no address"),
    "html": ({"storage": ["html"]}, "U", "gave no address"),
    "dropped": ({"storage": ["drop"]}, "U", r"could not be uploaded \(ServerDisconnectedError\)"),
    "elsewhere": ({"storage": [(200, {"upload_url": "https://10.0.0.1/put", "file_url": "https://v3.fal.media/a"})]}, "U", "not allowed"),
    "found elsewhere": ({"storage": [(200, {"upload_url": "https://v3.fal.media/put", "file_url": "file:///etc/passwd"})]}, "U", "not allowed"),
    "403": ({"put": [(403, "x")]}, "U", r"could not be uploaded \(HTTP 403\)"),
    "broken off": ({"put": ["drop", "drop"]}, "U", "could not be uploaded"),
}


@pytest.mark.parametrize(("behaviour", "code", "text"), BAD.values(), ids=BAD)
def test_a_failed_upload_is_one_sentence_and_no_job(server, settings, behaviour, code, text):
    server.reset(**{name: list(plan) for name, plan in behaviour.items()})
    with pytest.raises(errors.NotSentError, match=text) as caught:
        run(settings, asked())
    assert caught.value.code == code and server.posts == 0
    assert run(settings, asked()).seed == 5 and server.posts == 1


def test_no_storage_is_no_connection(server, settings):
    with pytest.raises(errors.NotSentError, match="Nothing was sent"):
        run(replace(settings, storage=URL("http://127.0.0.1:9")), asked())


def test_the_interrupt_ends_an_upload(server, settings):
    server.reset(put=["slow"])
    with pytest.raises(errors.Interrupted):
        run(settings, asked(), interrupted=lambda: server.count("PUT", "/put/") > 0, clock=Clock())
    assert server.posts == 0 and server.count("PUT", "/put/") == 1


def test_limits(server, settings):
    for changes, text in (({"strength": 1.5}, "strength must be 0-1"), ({"first_n_seconds": 5}, "first_n_seconds must be 2-4"), ({"content": b""}, "The video has 0 MB")):
        with pytest.raises(errors.NotSentError, match=text):
            asked(**changes)
    with pytest.raises(errors.NotSentError, match="65 MB; give a file of up to 64 MB"):
        asked(bytes(65 * 10**6))
