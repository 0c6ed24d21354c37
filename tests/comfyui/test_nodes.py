"""What ComfyUI shows of the pack: every node, with a tooltip on every input and output, aliases and a help page."""

import re

import pytest
from server import ROOT

NAMES = (
    "LoadMotionAdapter", "LoadMotionLora", "ApplyMotionAdapter", "EmptyVideoLatent", "TurboSampler", "TurboSchedule", "CombineVideo",
    "DecodeAndCombine", "LoadVideoFrames", "PromptTravel", "LoadTinyTurbo", "TextToVideo", "FalTextToVideo", "FalVideoToVideo",
)  # fmt: skip
NODES = [f"AnimateDiffTurbo_{name}" for name in NAMES]


@pytest.fixture(scope="module")
def info(comfy):
    return comfy.get("/object_info")


def test_object_info_lists_every_node_and_nothing_else_of_ours(info):
    assert sorted(name for name in info if name.startswith("AnimateDiffTurbo_")) == sorted(NODES)


def test_the_pack_loads_without_a_warning(comfy, info):
    lines = [line for line in comfy.startup_log.splitlines() if "animatediff" in line.lower()]
    assert lines and not [line for line in lines if re.search("warn|error|failed|traceback", line, re.IGNORECASE)]


@pytest.mark.parametrize("name", NODES)
def test_every_node_explains_itself(info, name):
    node = info[name]
    assert node["category"] == "AnimateDiff Turbo"
    assert node["display_name"] and node["description"].endswith(".") and "animatediff" in node["search_aliases"]
    inputs = {**node["input"].get("required", {}), **node["input"].get("optional", {})}
    for input_name, (_, options) in inputs.items():
        assert options["tooltip"].endswith("."), input_name
    assert all(tooltip.endswith(".") for tooltip in node["output_tooltips"]) and len(node["output_tooltips"]) == len(node["output"])


@pytest.mark.parametrize("name", NODES)
def test_every_node_has_a_help_page_that_names_its_inputs(comfy, info, name):
    page = comfy.request(f"/extensions/animatediff_turbo/docs/{name}.md").decode()
    assert page == (ROOT / "nodes" / "web" / "docs" / f"{name}.md").read_text(encoding="utf-8")
    options = {**info[name]["input"].get("required", {}), **info[name]["input"].get("optional", {})}
    for input_name, (_, option) in options.items():
        assert f"**{option.get('display_name', input_name)}**" in page, input_name


def test_defaults_are_the_ones_of_the_endpoint(info):
    latent = info["AnimateDiffTurbo_EmptyVideoLatent"]["input"]["required"]
    assert latent["video_size"][1]["default"] == "square" and latent["num_frames"][1]["default"] == 16
    assert info["AnimateDiffTurbo_CombineVideo"]["input"]["required"]["fps"][1]["default"] == 8


def test_the_loader_offers_published_families(info):
    family = info["AnimateDiffTurbo_LoadMotionAdapter"]["input"]["required"]["family"]
    assert family[1]["default"] == "auto" and "AnimateLCM" in family[1]["options"]


def test_the_loader_lists_model_files_only(comfy, info):
    folder = comfy.base / "models" / "animatediff_models"
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("listed.safetensors", "listed.ckpt", "listed.pt", "notes.txt"):
        (folder / name).touch()
    files = comfy.get("/object_info/AnimateDiffTurbo_LoadMotionAdapter")["AnimateDiffTurbo_LoadMotionAdapter"]["input"]["required"]["file"][1]["options"]
    assert {"listed.safetensors", "listed.ckpt", "listed.pt"} <= set(files) and "notes.txt" not in files
