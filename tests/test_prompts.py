"""ComfyUI's prompt weighting; the same prompts through ComfyUI's own code are in tests/comfyui."""

import pytest
import torch

from animatediff_turbo.headless import prompts
from animatediff_turbo.headless.tiny import networks, tokenizer


@pytest.fixture(scope="module")
def words():
    return tokenizer.build()


@pytest.mark.parametrize(
    ("prompt", "parts"),
    [
        ("", []),
        ("a b", [("a b", 1.0)]),
        ("a (b) c", [("a ", 1.0), ("b", 1.1), (" c", 1.0)]),
        ("((b))", [("b", 1.1 * 1.1)]),
        ("(b:1.5)", [("b", 1.5)]),
        ("(a (b:0.5) c)", [("a ", 1.1), ("b", 0.5), (" c", 1.1)]),
        (r"\(a\) (b\):2)", [("(a) ", 1.0), ("b)", 2.0)]),
        ("(a:b:1.3)", [("a:b", 1.3)]),
        ("(a:x)", [("a:x", 1.1)]),
        ("a (b", [("a ", 1.0), ("(b", 1.0)]),
        ("(bad quality, worst quality:1.2), ugly", [("bad quality, worst quality", 1.2), (", ugly", 1.0)]),
    ],
)
def test_brackets_weigh(prompt, parts):
    assert prompts.weighted_parts(prompt) == parts


def test_sections_are_whole_and_padded(words):
    (section,) = prompts.tokenize(words, "a (red:1.5) circle")
    assert len(section) == 32 and section[0] == (0, 1.0) and section[4:] == [(1, 1.0)] * 28
    assert [weight for _, weight in section[1:4]] == [1.0, 1.5, 1.0]
    long = prompts.tokenize(words, "red " * 65)
    assert [len(part) for part in long] == [32, 32, 32] and sum(token == words("red").input_ids[1] for part in long for token, _ in part) == 65


def test_a_short_run_moves_to_the_next_section_whole(words):
    first, second = prompts.tokenize(words, "red " * 28 + "(blue star up:1.2)")
    assert [weight for _, weight in first].count(1.2) == 0 and [weight for _, weight in second].count(1.2) == 3


def test_a_weight_scales_the_distance_from_the_empty_prompt(words):
    torch.manual_seed(0)
    encoder = networks.text_encoder(len(words)).eval()
    plain, empty = prompts.encode(words, encoder, "a red star"), prompts.encode(words, encoder, "")
    heavy = prompts.encode(words, encoder, "a (red:1.4) star")
    expected = plain.clone()
    expected[:, 2] = empty[:, 2] + 1.4 * (plain[:, 2] - empty[:, 2])
    assert torch.allclose(heavy, expected, atol=1e-6) and not torch.allclose(heavy, plain, atol=1e-3)


def test_an_embedding_is_refused_with_a_way_out(words):
    with pytest.raises(ValueError, match="use ComfyUI"):
        prompts.tokenize(words, "a (embedding:easynegative:1.2)")
    assert prompts.tokenize(words, "no embedding here")
