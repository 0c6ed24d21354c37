"""The stage of the text encoder: it learns to tell what captions say, as CLIP's has learned before a diffusion model sees it.

Trained together with the UNet it picks up colours at once and directions, which change few pixels of a still, not in 4000 steps.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import CLIPTextModel, PreTrainedTokenizerFast

from . import words, world
from .loop import Dice

ATTRIBUTES = {"shape": list(world.SHAPES), "colour": list(world.COLOURS), "direction": list(world.DIRECTIONS), "background": list(world.BACKGROUNDS)}
BATCH = 128


class Reader(nn.Module):
    """What this stage trains: the text encoder, and a linear reading of each attribute of the scene that is thrown away afterwards."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast, text_encoder: CLIPTextModel):
        super().__init__()
        self.tokenizer, self.text_encoder = tokenizer, text_encoder
        width = text_encoder.config.hidden_size
        self.readings = nn.ParameterDict({name: torch.randn(len(values), width) / width**0.5 for name, values in ATTRIBUTES.items()})

    def forward(self, captions: list[str]) -> tuple[dict[str, Tensor], Tensor]:
        """The logits of each attribute, (n, tokens, values), and from which tokens on the whole caption can be known, (n, tokens) bool."""
        ids = self.tokenizer(captions, padding="max_length", truncation=True, return_tensors="pt").input_ids.to(self.text_encoder.device)
        states = self.text_encoder(ids)[0]
        return {name: functional.linear(states, reading) for name, reading in self.readings.items()}, ids == self.tokenizer.eos_token_id


def loss(reader: Reader, dice: Dice) -> Tensor:
    """Cross entropy of every attribute, read from every token behind the caption."""
    scenes = [dice.python.choice(world.TRAINED) for _ in range(BATCH)]
    logits, behind = reader([words.caption(scene, dice.python) for scene in scenes])
    total = torch.zeros((), device=behind.device)
    for name, values in ATTRIBUTES.items():
        right = torch.tensor([values.index(getattr(scene, name)) for scene in scenes], device=behind.device)
        each = functional.cross_entropy(logits[name].transpose(1, 2), right[:, None].expand(behind.shape), reduction="none")
        total = total + (each * behind).sum() / behind.sum()
    return total
