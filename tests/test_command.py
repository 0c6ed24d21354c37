"""The command line from arguments to files, on the tiny model."""

import json
import re
import shutil
import subprocess
import sys

import av
import pytest
import torch
from safetensors.torch import load_file, save_file

from animatediff_turbo import schema
from animatediff_turbo.__main__ import main, parser
from animatediff_turbo.headless import base, command, render
from animatediff_turbo.headless.pipeline import Request
from animatediff_turbo.weights import TINY_BASE, TINY_MOTION

FAST = ["--num-inference-steps", "1", "--num-frames", "2", "--seed", "3", "--quiet"]
PROMPT = "a red circle moving right on a black background"


@pytest.fixture(scope="module")
def stack():
    return render.load(render.Models(device="cpu"))


def frames(path):
    with av.open(str(path)) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]


def tag(path):
    with av.open(str(path)) as container:
        return json.loads(container.metadata["animatediff_turbo"])


def test_a_prompt_is_enough(tmp_path, capsys):
    out = tmp_path / "out.mp4"
    assert main([PROMPT, "-o", str(out), "--quiet"]) == 0
    assert capsys.readouterr().out.strip() == str(out)
    assert [frame.shape for frame in frames(out)] == [(128, 128, 3)] * 16
    with av.open(str(out)) as container:
        assert container.streams.video[0].average_rate == 8
    assert tag(out)["prompt"] == PROMPT and tag(out)["adapter"] == "Tiny Turbo" and tag(out)["num_frames"] == 16


def test_the_same_seed_is_the_same_clip_and_another_is_not(tmp_path):
    outputs = [tmp_path / f"{name}.webp" for name in "abc"]
    for path, seed in zip(outputs, ("5", "5", "6"), strict=True):
        assert main([PROMPT, "-o", str(path), *FAST[:4], "--seed", seed, "--quality", "100", "--quiet"]) == 0
    first, second, third = (path.read_bytes() for path in outputs)
    assert first == second != third


def test_without_a_seed_every_clip_is_new_and_says_which(tmp_path):
    seeds = set()
    for name in ("a.mp4", "b.mp4"):
        assert main([PROMPT, "-o", str(tmp_path / name), *FAST[:4], "--quiet"]) == 0
        seeds.add(tag(tmp_path / name)["seed"])
    assert len(seeds) == 2


def test_a_list_is_rendered_and_gone_on_with(tmp_path, capsys):
    prompts, out = tmp_path / "list.jsonl", tmp_path / "clips"
    lines = [{"prompt": "a red circle"}, {"prompt": "a blue star", "seed": 9, "width": 64, "guidance_scale": 2}]
    prompts.write_text("\n".join(map(json.dumps, lines)) + "\n\n")
    arguments = ["--prompts", str(prompts), "-o", str(out), *FAST]
    assert main(arguments) == 0
    first, second = sorted(out.iterdir())
    assert (tag(first)["seed"], tag(second)["seed"]) == (3, 9) and frames(second)[0].shape == (128, 64, 3)
    kept = first.stat().st_mtime_ns
    second.unlink()
    capsys.readouterr()
    assert main(arguments) == 0
    assert sorted(out.iterdir()) == [first, second] and first.stat().st_mtime_ns == kept
    assert capsys.readouterr().out.split() == [str(second)]
    prompts.write_text(json.dumps(lines[0] | {"seed": 4}) + "\n")
    assert main(arguments) == 0
    assert len(list(out.iterdir())) == 3  # a changed line is another clip


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["-o", "x.gif"], r"x\.gif does not end in \.mp4, \.webm, \.webp"),
        (["-o", "missing/x.mp4"], "There is no folder"),
        (["--family", "Lightning"], "use auto or one of: AnimateDiff-Lightning 1 step"),
        (["--width", "0"], "width is 0; use a multiple of 8"),
        (["--guidance-scale", "inf"], "guidance_scale is inf; use 0 to 20"),
        (["--lora", f"{TINY_MOTION}:nan"], "has strength nan"),
        (["--prompts", "nowhere.jsonl"], "nowhere.jsonl can't be read"),
        (["--width", "100"], "width is 100; use a multiple of 8"),
        (["--num-frames", "33"], "num_frames is 33; Tiny Turbo knows 1 to 32 frames"),
        (["--num-inference-steps", "9"], "steps is 9"),
        (["--seed", "-1"], "seed is -1"),
        (["--strength", "0.5"], "--strength is for a video that the clip starts from; give one with --video"),
        (["--first-n-seconds", "2"], "--first-n-seconds is for a video"),
        (["--video", "nowhere.mp4"], "There is no video at nowhere.mp4"),
        (["--video", str(TINY_MOTION)], "tiny_turbo_motion.safetensors could not be read"),
        (["--fps", "0"], "fps"),
        (["--checkpoint", "nowhere"], "--checkpoint without --adapter"),
        (["--adapter", "nowhere"], "--adapter without --checkpoint"),
        (["--checkpoint", "nowhere", "--adapter", "nowhere"], "nowhere"),
        (["--checkpoint", "nowhere", "--adapter", str(TINY_MOTION)], "There is no checkpoint at nowhere"),
        (["--checkpoint", str(TINY_BASE / "tokenizer"), "--adapter", str(TINY_MOTION)], "is no complete diffusers folder"),
        (["--checkpoint", str(TINY_MOTION), "--adapter", str(TINY_MOTION)], "could not be loaded: .* --config"),
        (["--checkpoint", str(TINY_MOTION), "--config", "nowhere", "--adapter", str(TINY_MOTION)], "There is no folder nowhere; --config is"),
        (["--checkpoint", str(TINY_MOTION), "--config", str(TINY_BASE), "--adapter", str(TINY_MOTION)], "could not be loaded .*; give a whole SD1.5 checkpoint"),
        (["--device", "banana"], "--device banana does not work here"),
        (["--device", "meta"], "--device meta does not work here"),
        (["--lora", "nowhere.safetensors:0.8"], "There is no LoRA at nowhere.safetensors"),
        (["--lora", str(TINY_MOTION)], "is no LoRA for SD1.5"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_is_wrong_is_one_sentence(arguments, sentence, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main([*([] if "--prompts" in arguments else [PROMPT]), "--quiet", *arguments]) == 1
    error = capsys.readouterr().err
    assert len(error.strip().splitlines()) == 1 and re.search(sentence, error), error
    assert list(tmp_path.iterdir()) == []


def _spoil(folder, file):
    shutil.copytree(TINY_BASE, folder)
    path = folder / file
    path.write_bytes(path.read_bytes()[:-1000] if path.suffix == ".safetensors" else path.read_bytes().replace(b"StableDiffusionPipeline", b"NoSuchPipeline"))


@pytest.mark.parametrize("file", ["text_encoder/model.safetensors", "model_index.json"])
def test_a_broken_folder_is_one_sentence(file, tmp_path, capsys):
    _spoil(tmp_path / "base", file)
    assert main([PROMPT, "--checkpoint", str(tmp_path / "base"), "--adapter", str(TINY_MOTION), "-o", str(tmp_path / "x.mp4"), *FAST]) == 1
    error = capsys.readouterr().err
    assert len(error.strip().splitlines()) == 1 and "is no complete diffusers folder" in error, error


def test_a_lora_of_other_widths_is_one_sentence(tmp_path, capfd):
    name = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q"
    save_file({f"{name}.lora_down.weight": torch.ones(4, 320), f"{name}.lora_up.weight": torch.ones(320, 4)}, tmp_path / "big.safetensors")
    assert main([PROMPT, "--lora", str(tmp_path / "big.safetensors"), "-o", str(tmp_path / "x.mp4"), *FAST]) == 1
    assert "big.safetensors is no LoRA for SD1.5" in capfd.readouterr().err.strip().splitlines()[-1]


def test_a_file_that_cannot_be_written_is_one_sentence_too(tmp_path, capsys):
    out = tmp_path / "folder.mp4"
    out.mkdir()
    assert main([PROMPT, "-o", str(out), *FAST]) == 1
    error = capsys.readouterr().err
    assert len(error.strip().splitlines()) == 1 and "folder.mp4 could not be written" in error


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("{", "line 2 is not JSON"),
        ("[]", 'line 2 is not an object with a "prompt"'),
        ('{"seed": 1}', 'line 2 is not an object with a "prompt"'),
        ('{"prompt": "a", "steps": 4}', "line 2 has 'steps'; the fields are prompt, negative_prompt"),
        ('{"prompt": "a", "num_frames": "8"}', 'line 2: num_frames is "8", which is not int'),
        ('{"prompt": "a", "num_frames": true}', "line 2: num_frames is true, which is not int"),
    ],
)
def test_a_bad_line_is_named_before_anything_is_rendered(line, sentence, tmp_path):
    path = tmp_path / "list.jsonl"
    path.write_text(f'{{"prompt": "a"}}\n{line}\n')
    with pytest.raises(ValueError, match=sentence):
        render.requests(path, Request("a"))


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ('{"prompt": "a", "width": 100}', "line 3: width is 100"),
        ('{"prompt": "a", "num_inference_steps": 9}', "line 3: steps is 9"),
        ('{"prompt": "an embedding:bad"}', "line 3: The prompt names an embedding"),
        (r'{"prompt": "\ud800"}', "line 3: prompt has half a letter at place 1"),
    ],
)
def test_a_line_out_of_range_is_named_before_anything_is_rendered(line, sentence, tmp_path, capsys):
    path = tmp_path / "list.jsonl"
    path.write_text(f'{{"prompt": "a"}}\n\n{line}\n{{"prompt": "b"}}\n')
    assert main(["--prompts", str(path), "-o", str(tmp_path / "clips"), *FAST]) == 1
    error = capsys.readouterr().err
    assert len(error.strip().splitlines()) == 1 and sentence in error and not (tmp_path / "clips").exists(), error


@pytest.mark.parametrize(
    ("text", "sentence"), [(b"", "is empty"), ('{"prompt": "\u00e9"}'.encode("latin-1"), "is not UTF-8")], ids=["empty", "latin-1"]
)
def test_a_list_that_is_none_is_one_sentence(text, sentence, tmp_path):
    (tmp_path / "list.jsonl").write_bytes(text)
    with pytest.raises(ValueError, match=sentence):
        render.requests(tmp_path / "list.jsonl", Request("a"))


def test_a_byte_order_mark_and_line_separators_in_a_prompt_are_read(tmp_path):
    (tmp_path / "list.jsonl").write_text('\ufeff{"prompt": "a\u2028b"}\r\n', encoding="utf-8")
    (request,) = render.requests(tmp_path / "list.jsonl", Request("")).values()
    assert request.prompt == "a\u2028b"


def test_other_models_are_other_clips(tmp_path):
    asked, template = {1: Request("a")}, render.Job(Request("a"), tmp_path)
    models = [render.Models(), render.Models(dtype="bf16"), render.Models(loras=(base.Lora(TINY_MOTION, 0.5),)), render.Models(loras=(base.Lora(TINY_MOTION),))]
    names = [render.jobs(asked, each, tmp_path, template, ".mp4")[0].path.name for each in [*models, render.Models(device="cpu")]]
    assert len(set(names)) == 4 and names[4] == names[0]  # where it computes makes no other clip


def test_the_largest_seed_renders(stack):
    assert stack(Request(PROMPT, "", 64, 64, 2, 2, 1.0, 2**64 - 1)).isfinite().all()


def test_neither_and_both_kinds_of_prompt_are_refused(capsys):
    for arguments in ([], ["a", "--prompts", "b"]):
        with pytest.raises(SystemExit, match="2"):
            main(arguments)
    assert "give a prompt, or --prompts" in capsys.readouterr().err


def test_names_and_defaults_are_the_endpoints():
    options = parser().parse_args(["a"])
    assert options.negative_prompt == schema.NEGATIVE_PROMPT and options.fps == schema.FPS.default
    assert parser().parse_args(["a", "--video-size", "landscape_16_9"]).video_size == "landscape_16_9"
    with pytest.raises(SystemExit):
        parser().parse_args(["a", "--video-size", "huge"])


def test_defaults_come_from_the_adapter(stack):
    (job,) = command.jobs_of(parser().parse_args(["a"]), render.Models(), stack.adapter)
    assert (job.request.width, job.request.height, job.request.num_frames) == (128, 128, schema.NUM_FRAMES.default)
    (job,) = command.jobs_of(parser().parse_args(["a", "--video-size", "square", "--height", "64"]), render.Models(), stack.adapter)
    assert (job.request.width, job.request.height) == (512, 64)


def test_progress_counts_every_step(stack):
    seen = []
    stack(Request(PROMPT, "", 64, 64, 2, 3), lambda done, total: seen.append((done, total)))
    assert seen == [(1, 3), (2, 3), (3, 3)]


def test_guidance_1_and_less_ignore_the_negative_prompt(stack):
    clips = [stack(Request(PROMPT, negative, 64, 64, 2, 1, guidance, 1)) for negative, guidance in (("", 1.0), ("a blue star", 1.0), ("a star", 0.0), ("a star", 2.0))]
    assert torch.equal(clips[0], clips[1]) and torch.equal(clips[0], clips[2]) and not torch.equal(clips[0], clips[3])


@pytest.mark.parametrize("dtype", ["bf16", "fp16"])
def test_half_precision_is_the_same_clip_but_for_rounding(stack, dtype):
    half = render.load(render.Models(device="cpu", dtype=dtype))
    request = Request(PROMPT, "", 128, 128, 4, 1, 1.0, 1)
    assert half.base.unet.dtype == render.DTYPES[dtype]
    assert float((half(request) - stack(request)).abs().mean()) < 0.02


def test_the_whole_command_runs_as_a_module(tmp_path):
    command_line = [sys.executable, "-m", "animatediff_turbo", PROMPT, "-o", "clip.webm", *FAST]
    done = subprocess.run(command_line, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0 and done.stdout.strip() == str(tmp_path / "clip.webm") and done.stderr == "", done.stderr
    assert len(frames(tmp_path / "clip.webm")) == 2


def test_the_weights_are_small_and_half_precision():
    files = [*TINY_BASE.rglob("*.safetensors"), TINY_MOTION]
    assert sum(path.stat().st_size for path in TINY_BASE.parent.rglob("*") if path.suffix != ".py" and path.is_file()) <= 16 * 2**20
    assert all(tensor.dtype == torch.float16 for path in files for name, tensor in load_file(path).items())
