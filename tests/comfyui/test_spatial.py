"""The layers between the motion modules: as exact as ComfyUI's own, and left to them wherever something else hangs on them."""

import json
import os
import subprocess
from pathlib import Path

import pytest
import server as comfy_server


def reported(comfy, *arguments):
    program = Path(__file__).with_name("spatial_program.py")
    environment = os.environ | {"COMFYUI_PATH": str(comfy.path), "OMP_NUM_THREADS": "1"}
    result = subprocess.run([comfy_server.python(comfy.path), program, *arguments], check=False, env=environment, capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stderr[-2000:]
    return json.loads(result.stdout)


@pytest.fixture(scope="module")
def report(comfy):
    return reported(comfy)


def test_errors_against_float64_are_at_most_a_quarter_above_comfyuis(report):
    assert len(report["errors"]) == 15
    for case, (ours, theirs) in report["errors"].items():
        # a convolution in float32 is exact to 1e-6 by any order of its sums
        assert ours <= 1.25 * theirs or (ours < 1e-6 and "float32" in case), (case, ours, theirs)


def test_comfyuis_own_layers_run_where_something_needs_them(report):
    assert len(report["left_alone"]) == 20 and all(report["left_alone"].values()), report["left_alone"]


def test_small_pictures_are_not_multiplied_one_by_one_on_a_processor(report):
    assert report["a product for each picture, by pixels"] == [False, True] * 2


def test_weights_are_cast_and_patched_as_comfyui_does(report):
    assert report["weights that are cast and patched"] <= 1e-6


def test_the_motion_modules_layers_cast_and_patch_as_comfyui_does_where_something_is_to_be_done(report):
    assert len(report["motion layers"]) == 5
    for layer, checks in report["motion layers"].items():
        assert len(checks) == 6 and all(checks.values()), (layer, checks)


def test_a_mask_that_comes_on_a_gpu_meets_nothing_on_the_cpu(report):
    assert report["mask on a GPU"] == ["cpu", "cpu"]


def test_the_options_hold_what_comfyui_leaves_there(report):
    assert report["same traces in the options"]


def test_the_upsampling_is_folded_at_all(report):
    assert report["folds"]


def test_on_a_cpu_torchs_attention_stands_in_for_the_one_that_nobody_chose(comfy, report):
    found = reported(comfy, "--default-attention")
    assert found["replaced"] and found["another's stays"] and not found["on a GPU"] and not found["when it was chosen"]
    assert found["another result"] and found["errors"][0] <= 1.25 * found["errors"][1]
    assert not report["attention that was chosen"]
