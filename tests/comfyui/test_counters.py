"""How much work an evaluation is, counted: no clock."""

import json
import os
import subprocess
from pathlib import Path

import pytest
import server as comfy_server

PROGRAM = Path(__file__).resolve().parents[2] / "benchmarks" / "counters.py"


@pytest.fixture(scope="module")
def counted(comfy):
    result = subprocess.run([comfy_server.python(comfy.path), PROGRAM], check=False, env=os.environ | {"COMFYUI_PATH": str(comfy.path)}, capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stderr[-2000:]
    return json.loads(result.stdout)


def test_a_motion_module_is_at_most_24_operations_and_moves_nothing(counted):
    assert len(counted["modules"]) == 20
    for name, one in counted["modules"].items():
        assert one["operations"] <= 24 and one["layout_copies"] == 0, (name, one)


def test_an_evaluation_is_at_most_1100_operations_and_150_gigabytes(counted):
    whole, bare = counted["with_motion"], counted["unet"]
    assert whole["operations"] <= 1100 and whole["gigabytes"] <= 150, whole
    assert whole["layout_copies"] == bare["layout_copies"] - 2 * 16 == 2  # what is left are casts of the timesteps' embedding
    # that the tracer sees the whole UNet and all modules: it counts what their layers say
    assert whole["by_name"]["aten.native_group_norm"] == bare["by_name"]["aten.native_group_norm"] + 20
    assert whole["by_name"]["aten.convolution"] == 98 - 2 * 16 and bare["by_name"]["aten.convolution"] == 98
