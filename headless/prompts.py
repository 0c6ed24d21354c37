"""Prompts to what the UNet attends to, with ComfyUI's weighting: (words) are 1.1 times, (words:1.2) 1.2 times as strong; \\( and \\) are plain."""

import re
from collections.abc import Iterator

import torch
from torch import Tensor
from transformers import CLIPTextModel, PreTrainedTokenizerBase

STRESS = 1.1
LONG = 8
"""A run of words with one weight is cut at the end of a section from this many tokens on; a shorter one moves to the next section whole."""

Weighted = list[tuple[int, float]]


def weighted_parts(prompt: str) -> list[tuple[str, float]]:
    """The runs of a prompt that share a weight, in order.

    Unbalanced brackets behave as in ComfyUI: one that is never closed is plain text.
    """
    for written, hidden in (("\\(", "\0<"), ("\\)", "\0>")):
        prompt = prompt.replace(written, hidden)
    return [(text.replace("\0<", "(").replace("\0>", ")"), weight) for text, weight in _parts(prompt, 1.0)]


def _parts(text: str, weight: float) -> Iterator[tuple[str, float]]:
    for group in _groups(text):
        if len(group) < 2 or group[0] != "(" or group[-1] != ")":
            yield group, weight
            continue
        inner, stress = group[1:-1], weight * STRESS
        head, colon, tail = inner.rpartition(":")
        if head and colon and (number := _number(tail)) is not None:
            inner, stress = head, number
        yield from _parts(inner, stress)


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _groups(text: str) -> Iterator[str]:
    """Text outside of brackets, and each outermost bracket with what is in it."""
    start = depth = 0
    for position, letter in enumerate(text):
        if letter == "(":
            if depth == 0 and position > start:
                yield text[start:position]
                start = position
            depth += 1
        elif letter == ")":
            depth -= 1
            if depth == 0:
                yield text[start : position + 1]
                start = position + 1
    if start < len(text):
        yield text[start:]


def tokenize(tokenizer: PreTrainedTokenizerBase, prompt: str) -> list[Weighted]:
    """Sections of tokenizer.model_max_length tokens with their weights, each with start, end and padding.

    Raises ValueError for a textual inversion, which only ComfyUI knows where to find.
    """
    if re.search(r"(^|\s|\()embedding:", prompt):
        raise ValueError("The prompt names an embedding:, which the command line does not load; leave it out, or use ComfyUI.")
    start, end = tokenizer("").input_ids
    room = tokenizer.model_max_length - 2
    sections: list[Weighted] = [[]]
    for text, weight in weighted_parts(prompt):
        tokens = [(token, weight) for token in tokenizer(text, truncation=False, verbose=False).input_ids[1:-1]]
        long = len(tokens) >= LONG
        while len(sections[-1]) + len(tokens) > room:
            taken = room - len(sections[-1]) if long else 0
            sections[-1] += tokens[:taken]
            tokens = tokens[taken:]
            sections.append([])
        sections[-1] += tokens
    return [[(start, 1.0), *section, *[(end, 1.0)] * (room + 1 - len(section))] for section in sections]


@torch.no_grad()
def encode(tokenizer: PreTrainedTokenizerBase, text_encoder: CLIPTextModel, prompt: str) -> Tensor:
    """(1, tokens, width) on text_encoder's device, all sections behind one another.

    A weight scales a token's distance from the same place of the empty prompt.
    """
    sections = tokenize(tokenizer, prompt)
    (empty,) = tokenize(tokenizer, "")
    ids = torch.tensor([[token for token, _ in section] for section in (*sections, empty)], device=text_encoder.device)
    states = text_encoder(ids)[0]
    weights = torch.tensor([[weight for _, weight in section] for section in sections], dtype=states.dtype, device=states.device)
    neutral = states[-1:]
    weighted = torch.where(weights[..., None] == 1, states[:-1], neutral + weights[..., None] * (states[:-1] - neutral))
    return weighted.flatten(0, 1)[None]
