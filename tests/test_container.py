"""What the container reads, against torch.load and safetensors on what they write themselves."""

from collections import OrderedDict

import pytest
import torch
from safetensors.torch import save_file

from animatediff_turbo.motion_modules import container

DTYPES = (torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8)
DTYPES += (torch.bool, torch.complex64)


def content():
    generator = torch.Generator().manual_seed(0)
    found = {str(dtype): (100 * torch.randn(3, 5, generator=generator)).to(dtype) for dtype in DTYPES}
    shapes = {f"shape {shape}": torch.randn(shape, generator=generator) for shape in ((), (0,), (1, 7), (2, 3, 4), (2, 1, 3, 5, 1))}
    return found | shapes


def assert_equal(path, expected):
    tensors = container.open_tensors(path)
    assert tensors.shapes == {key: tensor.shape for key, tensor in expected.items()}
    for key, tensor in expected.items():
        found = tensors.read(key)
        assert found.dtype == tensor.dtype and torch.equal(found, tensor), key


def test_safetensors_are_what_was_written(tmp_path):
    save_file(content(), tmp_path / "a.safetensors", metadata={"format": "pt"})
    assert_equal(tmp_path / "a.safetensors", content())


def test_safetensors_load_whatever_the_first_byte_of_their_header_s_length(tmp_path):
    path, first = tmp_path / "a.safetensors", set()
    for length in range(0, 256, 8):
        save_file(content(), path, metadata={"padding": "x" * length})
        first.add(path.read_bytes()[0])
        assert_equal(path, content())
    assert first == set(range(0, 256, 8))


@pytest.mark.parametrize("wrap", [dict, OrderedDict, lambda c: {"state_dict": c, "epoch": 1}, lambda c: {"x": {"y": c}}])
def test_a_torch_file_is_what_torch_load_reads(tmp_path, wrap):
    strided = {"transposed": torch.randn(4, 6).t(), "channels last": torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last)}
    torch.save(wrap(content() | strided), tmp_path / "a.ckpt")
    loaded = torch.load(tmp_path / "a.ckpt", weights_only=True)
    while any(isinstance(value, dict) for value in loaded.values()):
        loaded = next(value for value in loaded.values() if isinstance(value, dict))
    assert_equal(tmp_path / "a.ckpt", loaded)


def test_parameters_and_a_module_s_state_dict_are_tensors(tmp_path):
    layer = torch.nn.ModuleDict({"a": torch.nn.BatchNorm1d(4), "b": torch.nn.BatchNorm1d(3)})
    torch.save(OrderedDict(layer.named_parameters()), tmp_path / "parameters.pt")
    assert_equal(tmp_path / "parameters.pt", {name: parameter.detach() for name, parameter in layer.named_parameters()})
    torch.save(layer.state_dict(), tmp_path / "state.pt")
    assert_equal(tmp_path / "state.pt", layer.state_dict())


def test_writing_to_a_mapped_tensor_leaves_the_file(tmp_path):
    path = tmp_path / "a.ckpt"
    torch.save(content(), path)
    before = path.read_bytes()
    container.open_tensors(path).read("torch.float32").zero_()
    assert path.read_bytes() == before
