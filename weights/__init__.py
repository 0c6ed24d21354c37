"""The only weights in the repository: a tiny text to video model, in the layouts in which large ones are published."""

from pathlib import Path

TINY_BASE = Path(__file__).parent / "tiny_sd15"
"""A diffusers folder: text encoder, UNet, VAE."""
TINY_MOTION = Path(__file__).parent / "tiny_turbo_motion.safetensors"
"""Its motion adapter under AnimateDiff's own names."""
