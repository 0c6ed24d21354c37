"""Keyframes as people write them."""

import pytest
import torch

from animatediff_turbo.motion_modules import keyframes


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0: a red circle | 8: a (blue:1.2) star", {0: "a red circle", 8: "a (blue:1.2) star"}),
        ("8: b\n0: a", {0: "a", 8: "b"}),
        ("  0 : {a|b} | 4:c|12: d ", {0: "{a|b}", 4: "c", 12: "d"}),
        ("3: ", {3: ""}),
        ("0: a | 8: b |\n", {0: "a", 8: "b"}),
        ("0: at 10:30 | 8: noon", {0: "at 10:30", 8: "noon"}),
        ("0: a [b|c] (d|e:1.2)\n2 lines\n8: f", {0: "a [b|c] (d|e:1.2)\n2 lines", 8: "f"}),
        ("0: {a|{b|c}} (d (e)|f) || 8: g", {0: "{a|{b|c}} (d (e)|f) |", 8: "g"}),
    ],
)
def test_texts_are_found_by_their_frames(text, expected):
    assert keyframes.parse(text) == expected and list(keyframes.parse(text)) == sorted(expected)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("a red circle", "is no list of keyframes"), ("", "is no list"), ("a | 8: b", "is no list"), ("-1: a", "is no list"), ("0: a | 0: b", "names frame 0 twice"),
        ("0: a | 8 a blue square", "^'8 a blue square' has no frame and colon"), ("0: a | x: b", "^'x: b' has no frame.*goes into brackets"),
    ],
)  # fmt: skip
def test_what_is_no_list_is_refused(text, sentence):
    with pytest.raises(ValueError, match=sentence):
        keyframes.parse(text)


def test_every_frame_has_one_whole_and_between_two_keyframes_it_is_linear():
    found = keyframes.shares([2, 6, 7], range(10))
    assert torch.equal(found.sum(1), torch.ones(10)) and (found >= 0).all()
    assert found[:3].tolist() == [[1, 0, 0]] * 3 and found[7:].tolist() == [[0, 0, 1]] * 3
    assert found[3].tolist() == [0.75, 0.25, 0] and found[6].tolist() == [0, 1, 0]
    assert keyframes.shares([0], range(3)).tolist() == [[1], [1], [1]]
    assert torch.equal(keyframes.shares([2, 6, 7], [5, 0, 9]), found[[5, 0, 9]])  # the frames of a context window


def test_a_curve_is_numbers():
    assert keyframes.curve(keyframes.numbers("0: 0 | 4: 1 | 6: -1"), range(8)).tolist() == [0, 0.25, 0.5, 0.75, 1, 0, -1, -1]
    for text, sentence in {"0: fast": "'fast' at frame 0 is no number", "0: 1 | 3: inf": "inf at frame 3 is not finite"}.items():
        with pytest.raises(ValueError, match=sentence):
            keyframes.numbers(text)
