"""The Triton kernels by interpretation on the CPU, and which way is taken where."""

import functools
import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from stacks import relative

from animatediff_turbo.motion_modules import kernels

needs_triton = pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="no Triton for this platform")


@pytest.fixture(scope="module")
def interpreted():
    script = Path(__file__).with_name("triton_by_interpretation.py")
    environment = os.environ | {"TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"}
    result = subprocess.run([sys.executable, script], check=False, env=environment, capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stderr[-2000:]
    return json.loads(result.stdout)


@needs_triton
def test_the_kernels_errors_are_at_most_a_quarter_above_torchs(interpreted):
    assert len(interpreted["errors"]) > 60
    for each in interpreted["errors"]:
        # below 1e-6 both are as exact as float32 is
        assert each["kernel"] <= max(1.25 * each["torch"], 1e-6), each


@needs_triton
def test_the_kernels_obey_the_laws_of_attention(interpreted):
    assert len(interpreted["laws"]) == 3 and all(error <= 1e-6 for error in interpreted["laws"].values()), interpreted["laws"]


def test_a_passing_lack_of_memory_does_not_switch_the_kernels_off_for_good(monkeypatch):
    free = [False, True]

    @functools.cache
    def tried(device):
        if not free.pop(0):
            raise torch.cuda.OutOfMemoryError("CUDA out of memory.")
        return True

    monkeypatch.setattr(kernels, "_works", tried)
    assert [kernels.works(torch.device("cuda", 0)) for _ in range(3)] == [False, True, True]


def test_a_batch_beyond_the_cuda_grid_is_cut_without_a_difference():
    q, k, v = torch.randn(3, kernels.MAX_SEQUENCES + 3, 1, 2, 4, generator=torch.Generator().manual_seed(4))
    whole = torch.nn.functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
    assert torch.allclose(kernels.attention(q, k, v), whole, atol=1e-6)


def test_the_operation_for_compilers_is_torchs_attention_where_there_is_no_gpu():
    q, k, v = torch.randn(3, 5, 8, 16, 40, generator=torch.Generator().manual_seed(4))

    @torch.compile(backend="eager", fullgraph=True)
    def compiled(q, k, v):
        return kernels.temporal_attention(q, k, v) + 1

    torch.library.opcheck(kernels.temporal_attention.default, (q, k, v))
    assert relative(compiled(q, k, v), kernels.plain_attention(q, k, v) + 1) == 0
