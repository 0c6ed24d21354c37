"""The only contact with ComfyUI's internals: official hooks of ModelPatcher, on clones, and nothing else."""

from .files import adapter_files, adapter_path, maps_files, metadata, new_file, register_folder, show
from .motion import MotionAdapter, Recipe, apply_motion, recipe
from .sampling import empty_latent, sample, sampler
from .schedule import TurboEPS, TurboVPrediction

__all__ = [
    "MotionAdapter",
    "Recipe",
    "TurboEPS",
    "TurboVPrediction",
    "adapter_files",
    "adapter_path",
    "apply_motion",
    "empty_latent",
    "maps_files",
    "metadata",
    "new_file",
    "recipe",
    "register_folder",
    "sample",
    "sampler",
    "show",
]
