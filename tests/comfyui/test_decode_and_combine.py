"""Decode and Combine: the file of VAE Decode and Combine Video, in memory that does not grow, and nothing left of what goes wrong."""

import re

import av
import pytest
import server as comfy_server
import torch
from graphs import node, turbo
from PIL import Image
from safetensors.torch import load_file
from test_tiny import PROMPT, tiny_graph

from animatediff_turbo.video.overlap import AHEAD

FRAME = 64 * 64 * 3
"""Bytes of one frame of the cases below."""


@pytest.fixture(scope="module")
def cases(comfy_path, tmp_path_factory):
    return comfy_server.run_cases(comfy_path, "tail_cases.py", tmp_path_factory.mktemp("tail"))


def test_frames_keep_their_order_and_play_again(cases):
    assert cases["plain"]["frames"] == [*range(10), 0, 1, 2]
    assert cases["pingpong"]["frames"] == [0, 1, 2, 3, 2, 1] and cases["pingpong"]["calls"] == 4
    assert cases["looped"]["frames"] == [0, 1, 2] * 3 and cases["looped"]["calls"] == 3


def test_hardware_without_a_card_is_software(cases):
    assert cases["hardware"]["frames"] == [0, 1, 2] and not cases["hardware"]["said"]


def test_memory_does_not_grow_with_the_clip(cases):
    short, long = cases["short"], cases["long"]
    assert (short["frames"], long["frames"]) == (16, 160)
    assert max(short["floats"], long["floats"]) <= 1  # of the VAE's results
    bound = 2 * FRAME * 4 + (AHEAD + 4) * FRAME  # two parts as floats, the queue and what each side has in hand as bytes
    assert 0 < short["bytes"] <= bound and 0 < long["bytes"] <= bound < 16 * FRAME * 4


@pytest.mark.parametrize(("case", "said", "calls"), [
    ("nan", "VideoError: .*case_00001_.mp4 was not written: frame 6 holds NaN or infinite values; run the VAE in fp32 or bf16.", 7),
    ("interrupt", "InterruptProcessingException", 3),
    ("interrupted webp", "InterruptProcessingException", 3),
    ("interrupted compressing", "InterruptProcessingException", 12),
    ("outside", "filename_prefix ../x leads out of the output folder", 0),
    ("sound of a webp", "webp has no sound; choose mp4 or webm", 0),
    ("fps", "fps is 241.0; for mp4 choose", 0),
    ("video latent", r"The latent has 5 dimensions, \(1, 4, 5, 8, 8\)", 0),
    ("video vae", "This VAE is for video or sound", 0),
    ("channels", "The latent has 16 channels and this VAE decodes 4", 0),
    ("no frames", "there are no frames", 0),
    ("full disk", "VideoError: .*free some disk space", None),
])  # fmt: skip
def test_what_goes_wrong_ends_the_decoding_and_leaves_neither_file_nor_thread(cases, case, said, calls):
    found = cases[case]
    assert re.search(said, found["said"]), found
    assert found["left"] == [] and found["threads"] == 0
    assert found["calls"] == calls if calls is not None else 0 < found["calls"] < found["of"] - 50


def test_no_run_leaves_a_thread(cases):
    assert all(not case["threads"] and not case["left"] for case in cases.values() if "threads" in case)


def test_the_vaes_frames_are_cores_own(cases):
    real = cases["real"]
    assert real["alone"] and real["dtype"] == "torch.uint8"
    assert real["most"] <= 1 and real["share"] < 1e-3  # one at a time or all at once


def test_on_a_card_the_result_stays_there_and_the_vae_is_not_changed(cases):
    assert cases["card"] == {"result": "cuda", "vae": "cpu", "same": True, "at_once": 4}


def test_the_video_of_a_webp_is_one_for_other_nodes(cases):
    found = cases["byte video"]
    assert found == {"shape": [4, 64, 64, 3], "levels": [0, 1, 2, 1], "dtype": "torch.float32", "fps": 8.0, "size": [64, 64], "saved": 4, "trimmed": True}


WAYS = [
    (format, {"pingpong": pingpong, "loop_count": loops})
    for format in ("mp4", "webm", "webp") for pingpong, loops in ((False, 0), (True, 0), (True, 1))
]  # fmt: skip


def rgb(path):
    if path.suffix == ".webp":
        with Image.open(path) as image:
            frames = []
            for index in range(image.n_frames):
                image.seek(index)
                frames.append(torch.frombuffer(bytearray(image.convert("RGB").tobytes()), dtype=torch.uint8))
            return torch.stack(frames), image.info["loop"]
    with av.open(str(path)) as container:
        return torch.stack([torch.from_numpy(frame.to_ndarray(format="rgb24")) for frame in container.decode(video=0)]), 0


def test_the_file_is_the_one_of_vae_decode_and_combine_video(comfy, tmp_path):
    """Nine ways in one graph; VAE Decode is given as many frames at a time as the node takes here, one."""
    graph = tiny_graph(PROMPT, "", tmp_path / "frames.safetensors", 11, steps=1)
    graph["5"]["inputs"] |= {"width": 72, "height": 64, "num_frames": 9}
    graph["20"] = node("RebatchLatents", latents=["6", 0], batch_size=1)
    graph["7"]["inputs"]["samples"] = ["20", 0]
    graph["21"] = node("RebatchImages", images=["7", 0], batch_size=4096)
    graph["8"]["inputs"]["images"] = ["21", 0]
    sound = {"sound": node("EmptyAudio", duration=3.0, sample_rate=44100, channels=2)}
    for number, (format, options) in enumerate(WAYS):
        common = {"fps": 8.0, "format": format, "quality": 100 if format == "webp" else 80, "save": True, **options}
        audio = {} if format == "webp" else {"audio": ["sound", 0]}
        graph[f"two{number}"] = turbo("CombineVideo", images=["21", 0], filename_prefix=f"two{number}", **common, **audio)
        graph[f"one{number}"] = turbo("DecodeAndCombine", latent=["6", 0], vae=["1", 2], encoder="software", filename_prefix=f"one{number}", **common, **audio)
    graph["30"] = node("GetVideoComponents", video=["one8", 0])
    graph["31"] = node("Testing_SaveFrames", images=["30", 0], path=str(tmp_path / "again.safetensors"))
    run = comfy.run(graph | sound)
    assert not run.error
    for number, (format, options) in enumerate(WAYS):
        paths = []
        for name in (f"two{number}", f"one{number}"):
            assert run.output(name)["animated"] == [True]
            (shown,) = run.output(name)["images"]
            paths.append(comfy.base / shown["type"] / shown["subfolder"] / shown["filename"])
        (two, loop), (one, other_loop) = map(rgb, paths)
        assert torch.equal(two, one) and loop == other_loop, (format, options)
        assert len(one) == (16 if options["pingpong"] else 9) * (2 if options["loop_count"] and format != "webp" else 1)
        assert format == "webm" or paths[0].read_bytes() == paths[1].read_bytes()  # a webm has a random number of its own
    assert {data["node"] for data in run.of("progress")} >= {"one0"}
    again = load_file(tmp_path / "again.safetensors")["frames"]
    frames = load_file(tmp_path / "frames.safetensors")["frames"]
    assert torch.equal(again[:9].mul(255).round(), frames.mul(255).round()) and len(again) == 16


def test_names_take_dates_and_inputs_of_other_nodes_as_cores_do(comfy):
    options = {"fps": 8.0, "format": "mp4", "quality": 80, "pingpong": False, "loop_count": 0, "save": True}
    graph = {
        "1": node("EmptyImage", width=64, height=32, batch_size=2, color=0) | {"_meta": {"title": "my pictures"}},
        "2": turbo("CombineVideo", images=["1", 0], filename_prefix="%date:yyyy%/%my pictures.batch_size%_%EmptyImage.color%_%width%x%height%_%no.such%", **options),
        "3": turbo("CombineVideo", images=["1", 0], filename_prefix="", **options),
        "4": turbo("CombineVideo", images=["1", 0], filename_prefix="x" * 300, **options),
    }
    assert "(file name too long); choose a shorter name." in comfy.run({name: graph[name] for name in ("1", "4")}).error
    run = comfy.run({name: graph[name] for name in ("1", "2", "3")})
    assert not run.error
    (named,), (unnamed,) = (run.output(name)["images"] for name in ("2", "3"))
    assert named["subfolder"].isdecimal() and named["filename"] == "2_0_64x32_%no.such%_00001_.mp4"
    assert unnamed["filename"].startswith("AnimateDiffTurbo_")
