"""One real ComfyUI server for all tests here; without a ComfyUI they are skipped, with the reason."""

import pytest
import server as comfy_server


@pytest.fixture(scope="session")
def comfy_base(tmp_path_factory):
    return tmp_path_factory.mktemp("comfyui")


@pytest.fixture(scope="session")
def comfy(comfy_base):
    path = comfy_server.find()
    if path is None:
        pytest.skip("no ComfyUI: set COMFYUI_PATH to a checkout, or put one at ~/comfy/ComfyUI")
    running = comfy_server.Server(path, comfy_base)
    yield running
    running.stop()
