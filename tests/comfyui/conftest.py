"""One real ComfyUI server for all tests here; without a ComfyUI they are skipped, with the reason."""

import narrow
import pytest
import server as comfy_server
from safetensors.torch import save_file

from animatediff_turbo.motion_modules import convert


@pytest.fixture(scope="session")
def comfy_base(tmp_path_factory):
    return tmp_path_factory.mktemp("comfyui")


@pytest.fixture(scope="session")
def comfy_path():
    path = comfy_server.find()
    if path is None:
        pytest.skip("no ComfyUI: set COMFYUI_PATH to a checkout, or put one at ~/comfy/ComfyUI")
    return path


@pytest.fixture(scope="session")
def comfy(comfy_path, comfy_base):
    running = comfy_server.Server(comfy_path, comfy_base)
    yield running
    running.stop()


@pytest.fixture(scope="session")
def stack(comfy, tmp_path_factory):
    """The narrow stack, and its adapter in the loader's folder: as it is, with two blocks exchanged, with one module switched off."""
    result = narrow.write(tmp_path_factory.mktemp("narrow"), narrow.build_unet())
    folder = comfy.base / "models" / "animatediff_models"
    folder.mkdir(parents=True, exist_ok=True)
    motion = narrow.motion_state_dict(result.unet)
    save_file(convert.to_original(motion), folder / "narrow_v2.safetensors")
    swapped = dict(motion)
    for name, tensor in motion.items():
        if name.startswith("down_blocks.1.motion_modules.0."):
            other = name.replace("modules.0", "modules.1")
            swapped[name], swapped[other] = motion[other], tensor
    save_file(convert.to_original(swapped), folder / "swapped_v2.safetensors")
    missing = {name: tensor * (not name.startswith("up_blocks.3.motion_modules.1.proj_out")) for name, tensor in motion.items()}
    save_file(convert.to_original(missing), folder / "missing_v2.safetensors")
    return result
