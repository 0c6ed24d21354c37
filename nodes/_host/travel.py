"""Prompts that change over the frames of a clip."""

from collections.abc import Mapping

import comfy.sd
import torch

from ...motion_modules import keyframes


def travel(clip: comfy.sd.CLIP, prompts: Mapping[int, str], frames: int) -> list:
    """CONDITIONING with a row for each frame, mixed linearly between the prompts at their frames. prompts: see `keyframes.parse`."""
    states = [clip.encode_from_tokens(clip.tokenize(text)) for text in prompts.values()]
    empty = clip.encode_from_tokens(clip.tokenize(""))
    longest = max(state.shape[1] for state in states)
    # a longer prompt has more sections; the shorter ones go on with empty ones
    padded = [torch.cat([state, *[empty] * ((longest - state.shape[1]) // empty.shape[1])], dim=1) for state in states]
    shares = keyframes.shares(prompts, range(frames)).to(padded[0])
    return [[torch.einsum("fk,knc->fnc", shares, torch.cat(padded)), {}]]
