"""What is sent, and by what it is known again."""

import json
from dataclasses import replace

import pytest
from fal_helpers import asked

from animatediff_turbo.fal import config, errors


def test_identity_is_what_is_sent_and_where(settings, tmp_path):
    assert asked().key(settings) == asked(width=64, height=640).key(settings)  # a preset has its own size
    others = [asked(seed=6), asked(prompt="a ship"), asked(guidance_scale=1.5), asked(video_size="custom"), asked(video_size="custom", width=64)]
    keys = {each.key(settings) for each in [asked(), *others]}
    assert len(keys) == 6 and asked().key(replace(settings, queue=config.QUEUE)) not in keys
    assert asked().key(replace(settings, folder=tmp_path / "elsewhere")) in keys


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"prompt": " \n"}, "The prompt is empty"),
        ({"prompt": "a" * 10_001}, "prompt has 10001 characters"),
        ({"prompt": "\ud800"}, "half a letter"),
        ({"seed": 2**31}, "seed must be 0-2147483647 \\(got 2147483648\\)"),
        ({"num_frames": 33}, "num_frames must be 1-32"),
        ({"num_inference_steps": 0}, "num_inference_steps must be 1-50"),
        ({"guidance_scale": float("nan")}, "guidance_scale must be 0-20"),
        ({"fps": 17}, "fps must be 1-16"),
        ({"video_size": "custom", "width": 4096}, "width must be 64-2048"),
        ({"video_size": "huge"}, "video_size is 'huge'"),
    ],
)
def test_values_out_of_range_are_refused_before_anything_is_sent(changes, sentence):
    with pytest.raises(errors.NotSentError, match=f"{sentence}.*Nothing was sent"):
        asked(**changes)


def test_every_field_is_sent_with_its_own_type():
    assert json.loads(asked(num_frames=16.0, guidance_scale=1).body({})) == {
        "prompt": "a boat", "negative_prompt": "", "num_frames": 16, "num_inference_steps": 4, "guidance_scale": 1.0, "seed": 5, "fps": 8, "video_size": "square"
    }  # fmt: skip
