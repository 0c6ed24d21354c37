"""video.metadata: the workflow in a file is found again by ComfyUI's frontend, whose parsers are retold here."""
import contextlib
import itertools
import json
import logging

import av
import pytest
import torch
from PIL import Image

from animatediff_turbo.video.encode import FORMATS, encode
from animatediff_turbo.video.metadata import json_tags, webp_exif

METADATA = {
    "workflow": {"nodes": [{"id": 1, "widgets_values": ["a {red|blue", 'say "}"', "back\\slash\\{", "\u00e9\u65e5 \U0001f98a"]}]},
    "prompt": {"1": {"class_type": "CLIPTextEncode", "inputs": {"text": "{" * 3}, "is_changed": [None]}},
}
FRAMES = torch.rand(3, 32, 32, 3, generator=torch.Generator().manual_seed(0))


def vint(data, at):
    """An EBML size: its value and how many bytes it takes."""
    length = 9 - data[at].bit_length()
    return int.from_bytes(data[at:at + length], "big") & ((1 << 7 * length) - 1), length


def element(data, name, start, end):
    at = data.index(name, start, end) + 2
    size, length = vint(data, at)
    return data[at + length:at + length + size]


def webm_metadata(data):
    """The frontend's scripts/metadata/ebml.ts: simple tags in 2 MB; a JSON ends where the braces (in strings too) are even."""
    data, at, found = data[:2 * 2**20], 0, {}
    while (at := data.find(b"\x67\xc8", at)) >= 0:
        size, length = vint(data, at + 2)
        start, at = at + 2 + length, at + 2 + length + size
        name, value = (element(data, tag, start, at).split(b"\0")[0].decode() for tag in (b"\x45\xa3", b"\x44\x87"))
        if name not in ("PROMPT", "WORKFLOW"):
            continue
        depths = list(itertools.accumulate((character == "{") - (character == "}") for character in value))
        with contextlib.suppress(ValueError):  # no end, or JSON cut short: the frontend drops it without a word
            found[name.lower()] = json.loads(value[:depths.index(0) + 1])
    return found


def webp_metadata(data):
    """The frontend's parser: the EXIF chunk's first directory, strings byte by byte, "key:json"."""
    at = data.index(b"EXIF") + 8
    exif = data[at:at + int.from_bytes(data[at - 4:at], "little")].removeprefix(b"Exif\0\0")
    order = "little" if exif[:2] == b"II" else "big"
    start = int.from_bytes(exif[4:8], order)
    found = {}
    for entry in range(start + 2, start + 2 + 12 * int.from_bytes(exif[start:start + 2], order), 12):
        kind, count, offset = (int.from_bytes(exif[entry + a:entry + b], order) for a, b in ((2, 4), (4, 8), (8, 12)))
        assert kind == 2
        key, _, text = exif[offset:offset + count - 1].decode("latin-1").partition(":")
        found[key] = json.loads(text)
    return found


def mp4_metadata(path):
    with av.open(str(path)) as container:
        return {key: json.loads(container.metadata[key]) for key in ("workflow", "prompt")}


READERS = {
    "mp4": mp4_metadata,
    "webm": lambda path: webm_metadata(path.read_bytes()),
    "webp": lambda path: webp_metadata(path.read_bytes()),
}


@pytest.mark.parametrize("format", FORMATS)
def test_the_frontend_finds_the_workflow_with_unbalanced_braces_and_foreign_letters(format, tmp_path):
    path = tmp_path / f"clip.{format}"
    encode(FRAMES, path, 8, format, metadata=METADATA)
    assert READERS[format](path) == METADATA


@pytest.mark.parametrize("value, found", [(b'{"a":"x"}', {"workflow": {"a": "x"}}), (b'{"a":"{"}', {}), (b'{"a":"}"}', {})])
def test_the_retold_webm_parser_loses_a_brace_in_a_string(value, found):
    assert webm_metadata(b"\x67\xc8" + bytes([0x80 | 23]) + b"\x45\xa3\x88WORKFLOW\x44\x87\x89" + value) == found


@pytest.mark.parametrize("format", FORMATS)
def test_a_file_without_metadata_is_a_file(format, tmp_path):
    encode(FRAMES, tmp_path / f"clip.{format}", 8, format)
    with Image.open(tmp_path / "clip.webp") if format == "webp" else av.open(str(tmp_path / f"clip.{format}")) as file:
        assert not {"workflow", "prompt"} & set(getattr(file, "metadata", {}))


def test_a_single_webp_picture_keeps_its_workflow(tmp_path):
    encode(FRAMES[:1], tmp_path / "clip.webp", 8, "webp", metadata=METADATA)
    assert webp_metadata((tmp_path / "clip.webp").read_bytes()) == METADATA


def test_webp_places_the_prompt_at_0x0110_and_any_number_of_others_below(tmp_path):
    metadata = {f"extra{index}": {"n": index} for index in range(20)} | METADATA
    encode(FRAMES, tmp_path / "clip.webp", 8, "webp", metadata=metadata)
    assert webp_metadata((tmp_path / "clip.webp").read_bytes()) == metadata
    with Image.open(tmp_path / "clip.webp") as image:
        exif = image.getexif()
    assert exif[0x0110].startswith("prompt:{") and exif[0x010F].startswith("extra0:{") and exif[0x010E].startswith("extra1:{")
    assert webp_exif(json_tags(metadata)) in (tmp_path / "clip.webp").read_bytes()


def test_mp4_holds_the_workflow_before_the_pictures(tmp_path):
    """The frontend reads the first 64 MB only."""
    encode(FRAMES, tmp_path / "clip.mp4", 8, "mp4", metadata=METADATA)
    data, at, boxes = (tmp_path / "clip.mp4").read_bytes(), 0, []
    while at < len(data):
        boxes.append(data[at + 4:at + 8])
        at += int.from_bytes(data[at:at + 4], "big")
    assert boxes.index(b"moov") < boxes.index(b"mdat")


def test_large_workflows_of_a_webm_lie_in_its_first_2_mb(tmp_path):
    metadata = {key: {"text": "word " * 60_000} for key in ("workflow", "prompt")}
    encode(FRAMES, tmp_path / "clip.webm", 8, "webm", metadata=metadata)
    assert webm_metadata((tmp_path / "clip.webm").read_bytes()) == metadata


def test_a_workflow_too_large_to_be_restored_is_said_so(tmp_path, caplog):
    with caplog.at_level(logging.WARNING):
        encode(FRAMES, tmp_path / "clip.webm", 8, "webm", metadata={"workflow": {"text": "x" * 2**21}})
    assert "too many for ComfyUI to restore it" in caplog.text


def test_tags_are_json_that_javascript_reads_without_braces_in_strings():
    tags = json_tags({"prompt": {"is_changed": [float("nan"), float("inf"), -float("inf"), 1.5], "{": "}\u00e9\ud800"}})
    assert tags["prompt"].isascii() and tags["prompt"].count("{") == tags["prompt"].count("}") == 1
    assert json.loads(tags["prompt"], parse_constant=pytest.fail) == {"is_changed": [None, None, None, 1.5], "{": "}\u00e9\ud800"}


@pytest.mark.parametrize("value", [{1, 2}, {"a": object()}, torch.zeros(1)])
def test_what_json_cannot_hold_is_refused_by_name(value):
    with pytest.raises(ValueError, match="metadata 'workflow' cannot be written as JSON"):
        json_tags({"workflow": value})
