"""What requests and workers share, and the parts around it, without a server."""

import asyncio
import dataclasses
import os
from pathlib import Path

import pytest
import torch

from animatediff_turbo.fal.request import TEXT_TO_VIDEO, VIDEO_TO_VIDEO
from animatediff_turbo.serve import answers, app, contract, files, patience, service, states, supervisor
from animatediff_turbo.serve.command import fingerprint, parser, settings
from animatediff_turbo.serve.desk import Bell, Desk, Live
from animatediff_turbo.serve.jobs import Order
from animatediff_turbo.serve.queue import Queue
from animatediff_turbo.serve.settings import Limits, Settings
from animatediff_turbo.video.encode import encode


@pytest.fixture
def queue(tmp_path):
    opened = Queue(tmp_path / "queue.sqlite")
    yield opened
    opened.close()


@pytest.fixture
def folder(tmp_path):
    return files.Files(tmp_path / "files")


def order(digest="x", **more):
    return Order(TEXT_TO_VIDEO, "", digest, {"prompt": "a", "seed": 1}, **more)


def test_a_bell_that_rang_in_between_is_heard():
    async def listen():
        bell = Bell()
        count = bell.count
        bell.ring()
        await asyncio.wait_for(bell.after(count, 1000), 10)
        waiting = asyncio.ensure_future(bell.after(bell.count, 1000))
        await asyncio.sleep(0)
        bell.ring()
        await asyncio.wait_for(waiting, 10)
        await bell.after(bell.count, 0.001)

    asyncio.run(listen())


def test_a_cancel_between_claim_and_begin_reaches_the_worker(queue, folder):
    """The claim is on disk, and the worker has not been given the job yet."""

    async def race():
        desk, told = Desk(queue, folder, Limits()), []
        await desk.submit(order())
        job = await desk.claim()
        assert (await desk.cancel(job.id, "")).state == states.CANCELLING
        desk.begin(job, Live(lambda: told.append(job.id), folder.new(files.MADE)))
        assert told == [job.id]
        ended = await desk.finish(job, 5)
        assert ended.state == states.CANCELLED and not desk.live and (await desk.ended(job.id, "")) == ended

    asyncio.run(race())


def test_the_file_of_a_job_that_has_none_is_removed(queue, folder):
    async def end(how):
        desk = Desk(queue, folder, Limits())
        await desk.submit(order(folder.new(files.MADE)))
        job, live = await desk.claim(), Live(lambda: None, folder.new(files.MADE))
        folder.path(live.file).write_bytes(b"x")
        desk.begin(job, live)
        await how(desk, job)
        return folder.exists(live.file)

    assert asyncio.run(end(lambda desk, job: desk.finish(job, 1)))
    assert not asyncio.run(end(lambda desk, job: desk.fail(job, states.Failure(500, "x", "y"))))
    assert not asyncio.run(end(lambda desk, job: desk.requeue(job)))


def test_files_have_names_that_can_not_be_guessed_or_lead_elsewhere(folder):
    names = {folder.new(kind) for kind in (files.MADE, files.SENT) for _ in range(100)}
    assert len(names) == 200 and all(folder.path(name).parent.name == "files" and not folder.exists(name) for name in names)
    for name in ("", ".", "..", "../x", "made-x.mp4", f"made-{'a' * 32}.mp4/..", f"made-{'a' * 32}.mp4\n", f"other-{'a' * 32}.mp4"):
        with pytest.raises(ValueError, match="no such file"):
            folder.path(name)
        assert not folder.exists(name) and not folder.may_upload(name, folder.token(name))


def test_an_upload_needs_its_own_token(folder, tmp_path):
    sent, made = folder.new(files.SENT), folder.new(files.MADE)
    assert folder.may_upload(sent, folder.token(sent)) and not folder.may_upload(made, folder.token(made))
    for wrong in ("", "\u00e9", folder.token(made), files.Files(tmp_path / "files").token(sent)):
        assert not folder.may_upload(sent, wrong)


def test_what_is_not_wanted_is_swept(folder, tmp_path):
    names = [folder.new(files.MADE), folder.new(files.MADE), folder.new(files.SENT), folder.new(files.SENT), ".cut-off.part"]
    for name in names:
        (tmp_path / "files" / name).write_bytes(b"x")
    os.utime(folder.path(names[3]), (1, 1))
    assert folder.sweep({names[0], names[3]}) == 0 and folder.sweep({names[0]}) == 1
    assert folder.sweep({names[0]}, everything=True) == 2 and {path.name for path in (tmp_path / "files").iterdir()} == {names[0], names[2]}


def test_work_counts_what_is_given_and_fals_defaults():
    assert contract.work(TEXT_TO_VIDEO, {"prompt": "x"}) == 512 * 512 * 16 * 8
    assert contract.work(TEXT_TO_VIDEO, {"video_size": "square_hd", "num_frames": 32, "num_inference_steps": 50}) == 1024 * 1024 * 32 * 50
    assert contract.work(TEXT_TO_VIDEO, {"video_size": {"width": 64}, "num_frames": 1, "num_inference_steps": 1}) == 64 * 512
    assert contract.work(VIDEO_TO_VIDEO, {"fps": 16, "first_n_seconds": 4}) == 512 * 512 * 32 * 12
    body = contract.INPUTS[TEXT_TO_VIDEO](prompt="x", seed=None, video_size={"width": 64})
    assert contract.arguments(body) == {"prompt": "x", "video_size": {"width": 64}}


def test_a_failed_job_is_told_in_fals_shapes(queue):
    queue.submit(order(), 10)
    job = queue.fail(queue.claim(9, lambda name: True), states.Failure(422, contract.Fault("seed", "It is odd.", "odd").detail(), "odd"), [])
    told = answers.status(job, None, 0, "http://x", False)
    assert (told["status"], told["error"], told["error_type"]) == ("COMPLETED", "It is odd.", "odd")
    assert answers.result(job, "http://x").status_code == 422 and answers.result(dataclasses.replace(job, failure=states.NOT_STARTED), "http://x").status_code == 504


def test_the_models_are_part_of_what_makes_requests_equal(tmp_path):
    (tmp_path / "a.ckpt").write_bytes(b"x")
    given = [Settings(tmp_path, models=models) for models in ({}, {"family": "auto"}, {"adapter": str(tmp_path / "a.ckpt")})]
    prints = [fingerprint(each) for each in given]
    (tmp_path / "a.ckpt").write_bytes(b"xy")
    assert len({*prints, fingerprint(given[2])}) == 4 and fingerprint(given[0]) == prints[0]


def test_flags_become_settings(tmp_path):
    flags = ["--device", "cuda:0", "--device", "cuda:1", "--lora", "a.safetensors:0.5", "--lora", "C:b.safetensors", "--adapter", "x.ckpt", "--keep-days", "1", "--origin", "https://x/"]
    found = settings(parser().parse_args(flags))
    assert found.devices == ("cuda:0", "cuda:1") and found.models["loras"] == [(str(Path("a.safetensors").absolute()), 0.5), (str(Path("C:b.safetensors").absolute()), 1.0)]
    assert found.keep_seconds == 86400 and found.models["adapter"] == str(Path("x.ckpt").absolute()) and found.origin == "https://x"
    found.check()


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [({"workers": 2}, "--workers is the number"), ({"ray": "box:1", "devices": ("cpu",)}, "don't go together"), ({"host": "::"}, "would let everybody"), ({"port": 70_000}, "--port is 70000"), ({"private_key": True}, "takes both"), ({"private_key": True, "certificate": True}, "no file")],
)
def test_settings_that_do_not_go_together_are_refused(tmp_path, changes, sentence):
    changes = {name: tmp_path / "none.pem" if value is True else value for name, value in changes.items()}
    with pytest.raises(ValueError, match=sentence):
        Settings(tmp_path, **changes).check()


def test_progress_is_drawn_as_fals_clients_read_it():
    assert supervisor._bar(2, 8) == " 25%|##        | 2/8" and supervisor._bar(8, 8) == "100%|##########| 8/8"


def test_the_application_has_fals_addresses(queue, folder, tmp_path):
    async def build():
        chosen = Settings(tmp_path)
        return app.build(service.Service(Desk(queue, folder, Limits()), chosen), chosen, None, lambda: None)

    paths = asyncio.run(build()).openapi()["paths"]
    assert {f"/{TEXT_TO_VIDEO}", f"/{VIDEO_TO_VIDEO}", f"/run/{TEXT_TO_VIDEO}", f"/{contract.APP}/requests/{{request_id}}/status"} <= set(paths)


def test_the_protocol_is_uvicorns():
    assert patience.impatient(1.0).__mro__[1] is patience.H11Protocol


def test_what_a_killed_worker_has_begun_to_write_goes_with_its_file(tmp_path):
    kept, folder = {}, files.Files(tmp_path)
    name, other = folder.new(files.MADE), folder.new(files.MADE)

    def frames():
        for _ in range(3):
            kept.update({path.name: b"half" for path in tmp_path.iterdir()})
            yield torch.zeros(16, 16, 3)

    for each in (name, other):
        encode(frames(), folder.path(each), 8, "mp4")
        folder.path(each).unlink()
    for path, content in kept.items():
        (tmp_path / path).write_bytes(content)
    assert len(kept) == 2
    folder.delete(name)
    (left,) = tmp_path.iterdir()
    assert left.name.startswith(f".{other.removesuffix('.mp4')}.")
