"""Folders, files and what is shown under a node."""

import contextlib
import logging
import os
from pathlib import Path

import folder_paths
import server
from comfy.cli_args import args
from comfy_execution.progress import get_progress_state
from comfy_execution.utils import get_executing_context

logger = logging.getLogger(__name__)

ADAPTER_FOLDER, LORA_FOLDER = "animatediff_models", "animatediff_motion_lora"
"""The folders in models/ that all AnimateDiff packs share."""


def register_folders() -> None:
    """Makes the folders known; other packs' paths and extensions for them stay."""
    for folder in (ADAPTER_FOLDER, LORA_FOLDER):
        path = os.path.join(folder_paths.models_dir, folder)
        folder_paths.add_model_folder_path(folder, path, is_default=False)
        paths, extensions = folder_paths.folder_names_and_paths[folder]
        folder_paths.folder_names_and_paths[folder] = (paths, set(extensions) | folder_paths.supported_pt_extensions)
        with contextlib.suppress(OSError):  # a read-only installation still finds the other paths of this name
            os.makedirs(path, exist_ok=True)


def listed_files(folder: str) -> list[str]:
    """The files in a folder of models/ that a loader offers."""
    return folder_paths.get_filename_list(folder)


def file_path(folder: str, file: str) -> str:
    """Full path of an offered file; raises ValueError when it has gone."""
    path = folder_paths.get_full_path(folder, file)
    if path is None:
        raise ValueError(f"{file} is not in models/{folder} any more; put it back or choose another file.")
    return path


def file_state(folder: str, file: str) -> tuple[str, int, int]:
    """What changes when an offered file is replaced on disk."""
    stat = os.stat(file_path(folder, file))
    return file, stat.st_mtime_ns, stat.st_size


def input_videos() -> list[str]:
    """The videos in ComfyUI's input folder; animated GIFs, which core takes for pictures, with them."""
    folder = folder_paths.get_input_directory()
    found = [name for name in os.listdir(folder) if os.path.isfile(os.path.join(folder, name))]
    return sorted({*folder_paths.filter_files_content_types(found, ["video"]), *(name for name in found if name.lower().endswith(".gif"))})


def is_input(file: str) -> bool:
    """Whether file is in the input folder (or, as "name [output]", in another of ComfyUI's)."""
    return folder_paths.exists_annotated_filepath(file)


def input_path(file: str) -> str:
    """Its full path."""
    return folder_paths.get_annotated_filepath(file)


def input_state(file: str) -> tuple[str, int, int]:
    """What changes when it is replaced on disk."""
    stat = os.stat(input_path(file))
    return file, stat.st_mtime_ns, stat.st_size


def maps_files() -> bool:
    """Whether tensors may stay on the drive until they are used; --disable-mmap says no."""
    return not args.disable_mmap


def shown_node() -> str | None:
    """The node that a person sees running (the one that was expanded to it), None outside of a queue."""
    context = get_executing_context()
    return None if context is None else get_progress_state().dynprompt.get_display_node_id(context.node_id)


def show(text: str) -> None:
    """Writes text under the running node and its first line into the log."""
    logger.info("%s", text.partition("\n")[0])
    tell(text)


def tell(text: str) -> None:
    """Writes text under the running node."""
    node = shown_node()
    if node is not None:
        server.PromptServer.instance.send_progress_text(text, node)


def new_file(prefix: str, suffix: str, save: bool, width: int, height: int) -> tuple[Path, str]:
    """The next free name in the output folder, or in temp when not saving, and its subfolder; %width%, %height% and %year% to %second% work in prefix."""
    folder = folder_paths.get_output_directory() if save else folder_paths.get_temp_directory()
    folder, name, counter, subfolder, _ = folder_paths.get_save_image_path(prefix, folder, width, height)
    return Path(folder) / f"{name}_{counter:05}_{suffix}", subfolder


def metadata(hidden) -> dict[str, object] | None:
    """The workflow and prompt of the running graph as objects, None under --disable-metadata."""
    if args.disable_metadata:
        return None
    return dict(hidden.extra_pnginfo or {}) | ({"prompt": hidden.prompt} if hidden.prompt is not None else {})
