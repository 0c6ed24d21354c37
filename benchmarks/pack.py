"""The pack in the folder above, under its own name whether it is installed or not."""

import importlib.util
import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
NAME = "animatediff_turbo"


def load() -> None:
    """Makes `import animatediff_turbo...` find this checkout."""
    if NAME in sys.modules:
        return
    spec = importlib.util.spec_from_file_location(NAME, ROOT / "__init__.py", submodule_search_locations=[str(ROOT)])
    module = importlib.util.module_from_spec(spec)
    sys.modules[NAME] = module
    spec.loader.exec_module(module)


def find_comfyui(given: Path | None) -> Path | None:
    """The ComfyUI checkout: the one given, COMFYUI_PATH or ~/comfy/ComfyUI; None when there is none."""
    places = [given] if given else [os.environ.get("COMFYUI_PATH"), Path.home() / "comfy" / "ComfyUI"]
    return next((Path(place).resolve() for place in places if place and (Path(place) / "main.py").is_file()), None)
