"""The only contact with ComfyUI's internals: official hooks of ModelPatcher, on clones, and nothing else."""

from .files import adapter_files, adapter_path, maps_files, metadata, new_file, register_folder, show
from .motion import MotionAdapter, apply_motion
from .recipe import Recipe, recipe
from .sampling import empty_latent, sample, sampler
from .schedule import TurboEPS, TurboVPrediction
from .tiny import TinyStack, load_tiny

__all__ = [
    "MotionAdapter",
    "Recipe",
    "TinyStack",
    "TurboEPS",
    "TurboVPrediction",
    "adapter_files",
    "adapter_path",
    "apply_motion",
    "empty_latent",
    "load_tiny",
    "maps_files",
    "metadata",
    "new_file",
    "recipe",
    "register_folder",
    "sample",
    "sampler",
    "show",
]
