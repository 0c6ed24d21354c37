"""The bundled workflows, as the frontend queues them, on a real server; what the file holds and what a second run does."""

import copy
import json

import av
import pytest
import server as comfy_server
import synthetic
from convert_workflow import to_prompt
from PIL import Image

from animatediff_turbo import schema

FOLDER = comfy_server.ROOT / "workflows"
RECORDED = comfy_server.ROOT / "tests" / "comfyui" / "prompts"
NAMES = sorted(path.stem for path in FOLDER.glob("*.json"))
FIRST_RUN, REMOTE = "First run (no downloads)", "Text to video on fal"
LOCAL = [name for name in NAMES if name != REMOTE]
WITH_DOWNLOADS = [name for name in LOCAL if name != FIRST_RUN]


def workflow(name):
    return json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def weights(comfy):
    synthetic.install(comfy.base, comfy.path)
    return comfy


@pytest.fixture(scope="module")
def info(comfy):
    return comfy.get("/object_info")


def small(prompt, **combine):
    """The prompt at 64x64, 28 frames of a long clip, 8 of a given video at 104x104, with the last node's inputs changed; nothing else differs."""
    prompt = copy.deepcopy(prompt)
    kinds = {node["class_type"]: node["inputs"] for node in prompt.values()}
    if "AnimateDiffTurbo_EmptyVideoLatent" in kinds:
        latent = kinds["AnimateDiffTurbo_EmptyVideoLatent"]
        latent |= {"video_size": "custom", "width": 64, "height": 64, "num_frames": 28 if latent["num_frames"] == 64 else latent["num_frames"]}
    else:
        kinds["AnimateDiffTurbo_LoadVideoFrames"] |= {"max_frames": 8}
        kinds["ImageScaleToTotalPixels"] |= {"megapixels": 0.01}
    (last,) = (inputs for kind, inputs in kinds.items() if kind in ("AnimateDiffTurbo_DecodeAndCombine", "AnimateDiffTurbo_CombineVideo"))
    last |= combine
    return prompt


LENGTHS = {"Long clip (64 frames)": (55, 16.0), "Seamless loop": (64, 16.0), "Video to video (AnimateLCM)": (8, 8.0)}
"""Frames and frames per second of the videos; 16 and 8 of the other workflows'."""


def combined(comfy, run):
    """Path of the file that the last node shows."""
    shown = run.output("10")
    assert shown["animated"] == [True]
    (image,) = shown["images"]
    assert comfy.request(f"/view?filename={image['filename']}&subfolder={image['subfolder']}&type={image['type']}")
    return comfy.base / image["type"] / image["subfolder"] / image["filename"]


def tags(path):
    """Metadata as the frontend finds it, parsed, without the `is_changed` that ComfyUI adds to nodes of a prompt that it runs."""
    if path.suffix == ".webp":
        with Image.open(path) as image:
            found = dict(value.split(":", 1) for value in image.getexif().values() if isinstance(value, str))
    else:
        with av.open(str(path)) as container:
            found = {key.lower(): value for key, value in container.metadata.items()}
    found = {key: json.loads(found[key]) for key in ("workflow", "prompt") if key in found}
    for node in found.get("prompt", {}).values():
        node.pop("is_changed", None)
    return found


def recorded(name, info):
    """What the real frontend queued, and of that what this ComfyUI does not know: inputs that came later, and the player that the canvas puts into a node."""
    prompt, unknown = json.loads((RECORDED / f"{name}.json").read_text(encoding="utf-8")), set()
    for node in prompt.values():
        order = info[node["class_type"]]["input_order"]
        extra = set(node["inputs"]) - {*order.get("required", []), *order.get("optional", [])}
        unknown |= extra - {"video-preview"}
        node["inputs"] = {key: value for key, value in node["inputs"].items() if key not in extra}
    return prompt, unknown


@pytest.mark.parametrize("name", NAMES)
def test_our_conversion_is_what_the_real_frontend_queues(info, name):
    prompt, unknown = recorded(name, info)
    if unknown:
        pytest.skip(f"recorded with a later ComfyUI, which has {', '.join(sorted(unknown))}")
    assert to_prompt(workflow(name), info) == prompt


@pytest.mark.parametrize("name", LOCAL)
def test_a_bundled_workflow_runs_to_a_playable_file_and_a_second_queue_runs_nothing(weights, info, name):
    ui = workflow(name)
    prompt = small(recorded(name, info)[0])
    run = weights.run(prompt, ui)
    assert not run.error
    path = combined(weights, run)
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        frames = list(container.decode(video=0))
        assert (len(frames), float(stream.average_rate), stream.codec_context.name) == (*LENGTHS.get(name, (16, 8.0)), "h264")
        side = 104 if "ImageScaleToTotalPixels" in {node["class_type"] for node in prompt.values()} else 64
        assert (stream.width, stream.height, bool(container.streams.audio)) == (side, side, side == 104)
    assert tags(path) == {"workflow": ui, "prompt": prompt}
    assert path.parent == weights.base / "output"
    again = weights.run(prompt, ui)
    assert again.executed == []


def test_the_lora_of_the_animatelcm_workflow_is_applied(weights, info):
    name = next(name for name in NAMES if "AnimateLCM" in name)
    prompt = small(to_prompt(workflow(name), info), filename_prefix="lora")
    weights.run(prompt)
    assert "lora key not loaded" not in weights.log and "NOT LOADED" not in weights.log


@pytest.mark.parametrize("format", ["mp4", "webm", "webp"])
def test_metadata_round_trips_with_a_brace_in_the_prompt(weights, info, format):
    ui = workflow(NAMES[0])
    next(node for node in ui["nodes"] if node["type"] == "CLIPTextEncode")["widgets_values"][0] = 'red {cat|dog "quoted" \\ caf\u00e9 }{'
    prompt = small(to_prompt(ui, info), format=format, filename_prefix=f"brace/{format}")
    assert "}{" in json.dumps(prompt)
    run = weights.run(prompt, ui)
    assert not run.error
    path = combined(weights, run)
    assert path.suffix == f".{format}" and path.parent.name == "brace" and tags(path) == {"workflow": ui, "prompt": prompt}


def test_preview_only_writes_into_temp(weights, info):
    prompt = small(to_prompt(workflow(NAMES[0]), info), save=False, filename_prefix="peek")
    path = combined(weights, weights.run(prompt))
    assert path.parent == weights.base / "temp" and not list((weights.base / "output").glob("peek*"))


def test_the_last_node_says_what_is_wrong_and_leaves_no_file(weights, info):
    prompt = small(to_prompt(workflow(NAMES[0]), info), filename_prefix="blocked/clip")
    (weights.base / "output").mkdir(exist_ok=True)
    (weights.base / "output" / "blocked").write_text("a file where the folder should be")
    error = weights.run(prompt).error
    assert error.startswith("blocked/clip could not be written (") and error.endswith(".") and "\n" not in error
    (weights.base / "output" / "blocked").unlink()
    error = weights.run(small(to_prompt(workflow(NAMES[0]), info), filename_prefix="../outside")).error
    assert error == "filename_prefix ../outside leads out of the output folder; use a name, or a folder in it and a name."
    prompt = small(to_prompt(workflow(NAMES[0]), info), format="webp", filename_prefix="sound")
    prompt["12"] = {"class_type": "EmptyAudio", "inputs": {"duration": 1.0, "sample_rate": 44100, "channels": 2}}
    prompt["10"]["inputs"]["audio"] = ["12", 0]
    assert "webp has no sound; choose mp4 or webm" in weights.run(prompt).error
    assert not list((weights.base / "output").glob("sound*")) and not list((weights.base / "output").rglob(".*"))


def test_video_output_feeds_core_nodes(weights, info):
    for format, frames in (("mp4", 30), ("webp", 30)):
        prompt = small(to_prompt(workflow(NAMES[0]), info), format=format, pingpong=True, filename_prefix=f"core/{format}", fps=12.5)
        prompt["20"] = {"class_type": "GetVideoComponents", "inputs": {"video": ["10", 0]}}
        options = {key: value for key, value in prompt["10"]["inputs"].items() if key not in ("latent", "vae", "encoder")}
        prompt["21"] = {"class_type": "AnimateDiffTurbo_CombineVideo", "inputs": options | {"images": ["20", 0], "pingpong": False, "fps": ["20", 2], "format": "mp4"}}
        run = weights.run(prompt)
        assert not run.error
        (image,) = run.output("21")["images"]
        with av.open(str(weights.base / "output" / image["subfolder"] / image["filename"])) as container:
            assert (len(list(container.decode(video=0))), float(container.streams.video[0].average_rate)) == (frames, 12.5)


def test_metadata_can_be_switched_off(comfy, tmp_path):
    options = {"fps": 8.0, "quality": 80, "pingpong": False, "loop_count": 0, "filename_prefix": "silent", "save": True}
    graph = {"1": {"class_type": "EmptyImage", "inputs": {"width": 64, "height": 64, "batch_size": 4, "color": 255}}}
    silent = comfy_server.Server(comfy.path, tmp_path, "--disable-metadata")
    try:
        for format in ("mp4", "webm", "webp"):
            graph["10"] = {"class_type": "AnimateDiffTurbo_CombineVideo", "inputs": options | {"images": ["1", 0], "format": format}}
            assert tags(combined(comfy, comfy.run(graph, workflow(NAMES[0])))).keys() == {"workflow", "prompt"}
            assert tags(combined(silent, silent.run(graph, workflow(NAMES[0])))) == {}
    finally:
        silent.stop()


@pytest.mark.parametrize("name", NAMES)
def test_a_workflow_names_its_packs_and_has_a_thumbnail(name):
    for node in workflow(name)["nodes"]:
        if node["type"] != "MarkdownNote":
            assert node["properties"]["cnr_id"] == ("animatediff-turbo" if node["type"].startswith("AnimateDiffTurbo_") else "comfy-core")
            assert node["properties"]["ver"]
    assert (FOLDER / f"{name}.jpg").is_file() and workflow(name)["groups"]


@pytest.mark.parametrize("name", WITH_DOWNLOADS)
def test_a_workflow_has_the_endpoints_prompts_and_all_that_the_missing_models_dialog_needs(name):
    nodes = workflow(name)["nodes"]
    texts = [node["widgets_values"][0] for node in nodes if node["type"] == "CLIPTextEncode"]
    assert schema.NEGATIVE_PROMPT in texts and any(text.startswith("masterpiece, best quality, 1girl") for text in texts)
    listed = [model | {"used": node["widgets_values"]} for node in nodes for model in node["properties"].get("models", [])]
    for model in listed:
        assert model["name"] in model["used"] and model["url"].startswith("https://huggingface.co/") and model["url"].endswith(model["name"])
    assert {"checkpoints", "animatediff_models"} <= {model["directory"] for model in listed}


@pytest.mark.parametrize("name", [FIRST_RUN, REMOTE])
def test_what_needs_no_file_names_none(name):
    assert not any(node["properties"].get("models") for node in workflow(name)["nodes"])


def test_every_node_occurs_in_a_workflow_or_has_a_reason_not_to(info):
    used = {node["type"] for name in NAMES for node in workflow(name)["nodes"]}
    ours = {name for name in info if name.startswith("AnimateDiffTurbo_")}
    # for people who build graphs with SamplerCustomAdvanced; between two nodes of every workflow, with files of its own; in place of CLIP Text Encode;
    # in place of a whole workflow
    alone = {"TurboSchedule", "LoadMotionLora", "PromptTravel", "TextToVideo", "FalVideoToVideo"}
    assert ours - used == {f"AnimateDiffTurbo_{name}" for name in alone}
