"""python -m animatediff_turbo ... --remote against fal's protocol on loopback."""

import json
import os
import re
import signal
import subprocess
import sys
import time

import pytest
import torch
from fal_server import KEY

from animatediff_turbo.__main__ import main, parser
from animatediff_turbo.fal import command
from animatediff_turbo.video.encode import encode


@pytest.fixture
def at_fal(server, tmp_path, monkeypatch):
    for name in [name for name in os.environ if name.startswith(("FAL_", "ADT_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("ADT_FAL_QUEUE_URL", server.address)
    monkeypatch.setenv("ADT_FAL_FOLDER", str(tmp_path / "journal"))
    monkeypatch.setenv("FAL_KEY", KEY)
    monkeypatch.chdir(tmp_path)
    return server


def test_a_prompt_is_a_job_with_fals_defaults_and_a_file(at_fal, tmp_path, capsys, video):
    assert main(["a boat", "--remote", "-o", "boat.mp4", "--seed", "5"]) == 0
    assert (tmp_path / "boat.mp4").read_bytes() == video and capsys.readouterr().out.strip() == "boat.mp4"
    (job,) = at_fal.jobs.values()
    assert job.arguments == {
        "prompt": "a boat", "negative_prompt": "(bad quality, worst quality:1.2), ugly faces, bad anime", "num_frames": 16, "num_inference_steps": 8,
        "guidance_scale": 2.0, "seed": 5, "fps": 8, "video_size": "square",
    }  # fmt: skip
    assert main(["a boat", "--remote", "-o", "again.mp4", "--seed", "5", "--quiet"]) == 0 and at_fal.posts == 1


def test_flags_are_sent(at_fal):
    options = ["--num-frames", "24", "--num-inference-steps", "4", "--guidance-scale", "1", "--fps", "12", "--width", "640", "--negative-prompt", "no", "--seed", "7"]
    assert main(["a boat", "--remote", *options]) == 0
    (job,) = at_fal.jobs.values()
    assert job.arguments == {
        "prompt": "a boat", "negative_prompt": "no", "num_frames": 24, "num_inference_steps": 4, "guidance_scale": 1.0, "seed": 7, "fps": 12,
        "video_size": {"width": 640, "height": 512},
    }  # fmt: skip


def test_a_video_is_uploaded(at_fal, tmp_path):
    encode(torch.rand(20, 64, 64, 3), tmp_path / "in.mp4", 8, "mp4")
    assert main(["a boat", "--remote", "--video", "in.mp4", "--strength", "0.5", "--seed", "1"]) == 0
    (job,) = at_fal.jobs.values()
    assert (job.arguments["strength"], job.arguments["first_n_seconds"], job.arguments["num_inference_steps"]) == (0.5, 3, 12) and len(at_fal.uploads) == 1
    assert main(["a boat", "--remote", "--video", "in.mp4", "--strength", "0.5", "--seed", "1"]) == 0 and at_fal.posts == 1


def test_a_list_is_one_job_for_each_line_and_the_others_are_finished_when_one_fails(at_fal, tmp_path, capsys):
    lines = [{"prompt": f"boat {number}"} for number in range(4)]
    (tmp_path / "list.jsonl").write_text("\n".join(map(json.dumps, lines)))
    at_fal.reset(submit=["right", (500, {"detail": "x"})])
    assert main(["--remote", "--prompts", "list.jsonl", "-o", "clips"]) == 1
    assert re.search(r"^line \d: .* fal does not charge for server errors", capsys.readouterr().err, re.MULTILINE) and len(list((tmp_path / "clips").iterdir())) == 3
    assert main(["--remote", "--prompts", "list.jsonl", "-o", "clips"]) == 0
    assert at_fal.posts == 5 and sorted(job.arguments["seed"] for job in at_fal.jobs.values()) == [0, 1, 2, 3]


def test_every_line_that_fails_is_named(at_fal, tmp_path, capsys):
    (tmp_path / "list.jsonl").write_text("\n".join(json.dumps({"prompt": f"boat {number}"}) for number in range(4)))
    at_fal.reset(submit=["drop", (422, {"detail": [{"loc": ["body", "prompt"], "msg": "x", "type": "content_policy_violation"}]})])
    assert main(["--remote", "--prompts", "list.jsonl", "-o", "clips", "--quiet"]) == 1
    first, second = sorted(capsys.readouterr().err.strip().splitlines(), key=lambda line: "content check" in line)
    assert re.match(r"line \d: .*may or may not have started", first) and re.match(r"line \d: .*content check refused", second)


SIZES = {
    "a line's sides go before an option's preset": (["--video-size", "square"], {"width": 768, "height": 512}, {"width": 768, "height": 512}),
    "one side of a preset": (["--video-size", "portrait_4_3"], {"width": 512}, {"width": 512, "height": 1024}),
    "an option's side": (["--video-size", "square", "--width", "768"], {}, {"width": 768, "height": 512}),
    "a line's preset goes before options": (["--width", "768"], {"video_size": "square_hd"}, "square_hd"),
    "a line's side and an option's": (["--width", "768"], {"height": 256}, {"width": 768, "height": 256}),
    "custom": ([], {"video_size": "custom", "width": 256, "height": 128}, {"width": 256, "height": 128}),
    "nothing": ([], {}, "square"),
}


@pytest.mark.parametrize(("options", "line", "size"), SIZES.values(), ids=SIZES)
def test_sizes_are_what_was_asked_for(tmp_path, options, line, size):
    path = tmp_path / "list.jsonl"
    path.write_text(json.dumps({"prompt": "boat"} | line))
    (clip,) = command._clips(parser().parse_args(["--remote", "--prompts", str(path), "-o", str(tmp_path / "clips"), *options]))
    assert clip.request.arguments["video_size"] == size


def test_more_jobs_than_allowed_are_not_sent(at_fal, tmp_path, capsys):
    (tmp_path / "list.jsonl").write_text("\n".join(json.dumps({"prompt": f"boat {number}"}) for number in range(9)))
    assert main(["--remote", "--prompts", "list.jsonl"]) == 1
    assert "more than 8 paid jobs" in capsys.readouterr().err and at_fal.posts == 8


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["a", "-o", "x.webm"], "does not end in .mp4, which is what fal.ai gives"),
        (["a", "-o", "missing/x.mp4"], "There is no folder"),
        (["a", "--checkpoint", "x"], "--checkpoint is for clips that are rendered here"),
        (["a", "--device", "cpu"], "--device is for clips"),
        (["a", "--num-frames", "33"], "num_frames must be 1-32"),
        (["a", "--fps", "8.5"], "fps must be a whole number"),
        (["a", "--fps", "inf"], "fps must be 1-16"),
        (["a", "--num-frames", "1" + "0" * 400], "num_frames must be 1-32"),
        (["a", "--width", "1" + "0" * 400], "width must be 64-2048"),
        (["a", "--seed", "-" + "1" * 400], "seed must be 0-2147483647"),
        (["a", "--video-size", "square", "--width", "7"], "width must be 64-2048"),
        (["a", "--strength", "0.5"], "--strength is for a video"),
        (["a", "--video", "nowhere.mp4"], "There is no video at nowhere.mp4"),
        ([" "], "The prompt is empty"),
    ],
)
def test_what_is_wrong_is_one_sentence_and_nothing_is_sent(at_fal, arguments, sentence, capsys):
    assert main([*arguments, "--remote"]) == 1
    error = capsys.readouterr().err.strip()
    assert sentence in error and len(error.splitlines()) == 1 and not at_fal.requests


def test_a_bad_line_is_named_before_anything_is_sent(at_fal, tmp_path, capsys):
    (tmp_path / "list.jsonl").write_text('{"prompt": "a"}\n{"prompt": "b", "num_frames": 99}')
    assert main(["--remote", "--prompts", "list.jsonl"]) == 1
    assert "line 2: " in capsys.readouterr().err and not at_fal.requests


def test_an_error_names_the_seed_that_nobody_chose(at_fal, capsys):
    at_fal.reset(submit=["drop"])
    assert main(["a boat", "--remote", "--quiet"]) == 1
    (job,) = at_fal.jobs.values()
    assert f"To ask for the same clip again add --seed {job.arguments['seed']}." in capsys.readouterr().err


def test_without_a_key_it_says_where_to_get_one(at_fal, monkeypatch, capsys):
    monkeypatch.delenv("FAL_KEY")
    assert main(["a boat", "--remote"]) == 1
    assert "No fal.ai key found" in capsys.readouterr().err and not at_fal.requests


@pytest.mark.skipif(os.name != "posix", reason="Windows has no SIGINT for another process")
def test_ctrl_c_cancels_the_job(at_fal):
    at_fal.reset(running=10**6)
    process = subprocess.Popen([sys.executable, "-m", "animatediff_turbo", "a boat", "--remote", "--quiet"], stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while not at_fal.count("GET", "/status") and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 130 and "Interrupted; what is finished is kept." in error and KEY not in error
    (job,) = at_fal.jobs.values()
    assert job.cancelled and f"may be finished and billed all the same: add --seed {job.arguments['seed']} to ask for it first" in error


def test_every_field_of_a_line_has_a_kind():
    assert {"prompt", "seed", "video_size"} < command.KINDS.keys()
