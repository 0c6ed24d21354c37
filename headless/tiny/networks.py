"""The tiny stack: SD1.5's topology, narrower, and how its latents are scaled."""

from diffusers import AutoencoderKL, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel

from ...motion_modules.config import Layout
from ...motion_modules.model import MotionModel

WIDTHS = (64, 64, 64, 64)
"""Of the UNet, the motion module and the VAE.

At 32, GroupNorm's 32 groups before the last layer would hold one channel each, and every channel's mean would be lost: the VAE loses the background with it,
and the UNet the mean of the noise, which is 25 / 16 in a latent of 16x16 where sampling starts.
"""
TEXT_WIDTH, TEXT_TOKENS = 32, 32
LATENT_SCALE = 0.18215
"""SD1.5's: latents times this have unit deviation where the UNet sees them."""


def text_encoder(vocabulary_size: int) -> CLIPTextModel:
    """CLIP's text transformer with three narrow layers; bos 0, eos and padding 1."""
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=vocabulary_size, hidden_size=TEXT_WIDTH, intermediate_size=4 * TEXT_WIDTH, projection_dim=TEXT_WIDTH, num_hidden_layers=3,
            num_attention_heads=4, max_position_embeddings=TEXT_TOKENS, hidden_act="quick_gelu", bos_token_id=0, eos_token_id=1, pad_token_id=1,
        )
    )  # fmt: skip


def unet() -> UNet2DConditionModel:
    """SD1.5's UNet."""
    return UNet2DConditionModel(sample_size=16, block_out_channels=WIDTHS, layers_per_block=2, cross_attention_dim=TEXT_WIDTH, attention_head_dim=8)


def vae() -> AutoencoderKL:
    """SD1.5's VAE: 8x smaller latents of 4 channels."""
    levels = len(WIDTHS)
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * levels, up_block_types=("UpDecoderBlock2D",) * levels, block_out_channels=WIDTHS,
        layers_per_block=2, latent_channels=4, sample_size=128, scaling_factor=LATENT_SCALE,
    )  # fmt: skip


def motion() -> MotionModel:
    """A motion module as v3 has it, without a mid block."""
    return MotionModel(Layout(WIDTHS, 2, False))
