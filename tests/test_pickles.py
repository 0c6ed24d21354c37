"""What is let through to torch.load, and what is not."""

import _codecs
import pickle
import pickletools

import pytest
import torch

from animatediff_turbo.motion_modules import pickles

PLAIN = {"a": 1, "b": -1.5, "c": None, "d": True, "e": (1, (2, 3), ()), "f": {"g": "text \u20ac", "h": 2**40}, "i": 70000, "j": [1, [2]]}


class Call:
    """An object whose pickle calls a function."""

    def __init__(self, *call):
        self.call = call

    def __reduce__(self):
        return self.call[0], self.call[1:]


def test_plain_values_are_let_through():
    pickles.inspect(pickle.dumps(PLAIN, 2))


def test_what_refers_to_itself_ends():
    circle = {}
    circle["circle"] = circle
    pickles.inspect(pickle.dumps(circle, 2))


@pytest.mark.parametrize("function", [print, eval, torch.load, pickle.loads], ids=lambda function: function.__qualname__)
@pytest.mark.parametrize("protocol", range(6))
def test_what_names_code_is_forbidden_in_every_protocol(function, protocol):
    with pytest.raises(pickles.Forbidden, match="could run code"):
        pickles.inspect(pickle.dumps({"x": function}, protocol))


@pytest.mark.parametrize("call", [(bytearray, 10**11), (_codecs.encode, "a", "latin1"), (torch.FloatTensor, 10**11)], ids=lambda call: call[0].__name__)
def test_calls_that_torch_allows_but_that_ask_for_memory_are_forbidden(call):
    with pytest.raises(pickles.Forbidden, match="needs the Python object"):
        pickles.inspect(pickle.dumps(Call(*call), 2))


def test_a_length_without_end_is_forbidden():
    with pytest.raises(pickles.Forbidden, match="far more"):
        pickles.inspect(b"\x80\x02" + b"]" * pickles.MAX_OPERATIONS + b".")


def test_every_operation_of_a_real_file_is_let_through(tmp_path):
    layer = torch.nn.ModuleDict({"a": torch.nn.BatchNorm1d(4), "b": torch.nn.BatchNorm1d(3)})
    for content in (layer.state_dict(), dict(layer.named_parameters()), PLAIN | {"state_dict": layer.state_dict()}):
        torch.save(content, tmp_path / "file.pt")
        archive = torch._C.PyTorchFileReader(str(tmp_path / "file.pt"))
        data = archive.get_record("data.pkl")
        pickles.inspect(data)
        assert len(list(pickletools.genops(data))) < pickles.MAX_OPERATIONS


def test_a_broken_pickle_is_a_value_error():
    with pytest.raises(ValueError):
        pickles.inspect(b"\x80\x02X\xff\xff\xff\x7f")
