"""The only contact with ComfyUI's internals: official hooks of ModelPatcher, on clones, and nothing else."""

from .decode import clip_latents, decoded, pixel_size
from .files import (
    ADAPTER_FOLDER,
    LORA_FOLDER,
    file_path,
    file_state,
    input_path,
    input_state,
    input_videos,
    is_input,
    listed_files,
    maps_files,
    metadata,
    new_file,
    register_folders,
    show,
)
from .motion import MotionAdapter, apply_motion
from .progress import Progress, stop_when_asked
from .recipe import Recipe, recipe
from .remote import GraphBuilder, opened, run_at_fal
from .sampling import empty_latent, sample, sampler
from .schedule import TurboEPS, TurboVPrediction
from .strength import Strength
from .tiny import TinyStack, load_tiny
from .travel import travel

__all__ = [
    "ADAPTER_FOLDER",
    "LORA_FOLDER",
    "GraphBuilder",
    "MotionAdapter",
    "Progress",
    "Recipe",
    "Strength",
    "TinyStack",
    "TurboEPS",
    "TurboVPrediction",
    "apply_motion",
    "clip_latents",
    "decoded",
    "empty_latent",
    "file_path",
    "file_state",
    "input_path",
    "input_state",
    "input_videos",
    "is_input",
    "listed_files",
    "load_tiny",
    "maps_files",
    "metadata",
    "new_file",
    "opened",
    "pixel_size",
    "recipe",
    "register_folders",
    "run_at_fal",
    "sample",
    "sampler",
    "show",
    "stop_when_asked",
    "travel",
]
