"""ComfyUI in this process, as its own main.py starts it. Nothing may have imported torch before: the allocator is chosen first."""

import asyncio
import sys
from pathlib import Path


def start(comfyui: Path, base: Path, flags: list[str], packs: list[Path]) -> None:
    """Parses ComfyUI's flags, chooses allocator and dynamic VRAM as main.py does, and loads custom node packs by their folders."""
    sys.argv = ["main.py", "--base-directory", str(base), "--disable-metadata", *flags]
    sys.path.insert(0, str(comfyui))
    import comfy.options

    comfy.options.enable_args_parsing()
    import cuda_malloc  # noqa: F401
    import main  # noqa: F401

    import nodes

    for folder in packs:
        if not asyncio.run(nodes.load_custom_node(str(folder))):
            raise ImportError(f"{folder} was not loaded as a node pack; its traceback is above.")
