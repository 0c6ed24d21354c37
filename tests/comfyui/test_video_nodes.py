"""Combine Video and Load Video Frames: a bar that moves, an interrupt that is heard, and a VIDEO that others can save."""


import pytest
import server as comfy_server
from graphs import node, turbo

COMBINE = {"fps": 24.0, "quality": 100, "pingpong": False, "loop_count": 0, "save": True}


@pytest.fixture(scope="module")
def cases(comfy_path, tmp_path_factory):
    return comfy_server.run_cases(comfy_path, "video_cases.py", tmp_path_factory.mktemp("video"))


@pytest.mark.parametrize(("case", "total"), [("combined", 60), ("looped", 236), ("webp", 60), ("loaded", 100), ("loaded part", 100)])
def test_the_bar_moves_from_the_start_to_the_end(cases, case, total):
    (first, of), (last, of_last) = cases[case]["bar"]
    assert of == of_last == total and first <= 0.1 * total and last >= 0.9 * total and not cases[case]["said"]


@pytest.mark.parametrize("case", ["interrupted", "interrupted webm", "interrupted webp", "interrupted webp later", "interrupted preview", "interrupted load", "interrupted sound"])
def test_an_interrupt_ends_the_node_and_leaves_nothing(cases, case):
    found = cases[case]
    assert found["said"] == "InterruptProcessingException" and not found["asked"]
    assert found["left"] == [] and found["threads"] == 0 and "frames" not in found
    assert found["bar"][1][0] < found["bar"][1][1] or case == "interrupted sound"


def test_what_is_not_interrupted_is_complete(cases):
    assert cases["combined"]["left"] == ["case_00001_.mp4"] and cases["loaded"]["frames"] == 60 and cases["loaded part"]["frames"] == 8


def test_the_video_of_grey_or_transparent_pictures_can_be_saved(cases):
    assert all(found == [[4, 64, 64, 3], 4] for found in cases["videos"].values()), cases["videos"]


def test_a_prompt_in_a_name_is_cut_to_fit(cases):
    assert 240 <= cases["name"] <= 255


def interrupted(comfy, kind):
    """During what the node of this kind shows of its progress somebody presses the button."""
    pressed = []

    def during(event, data):
        if event == "progress" and data["node"] == kind and not pressed:
            pressed.append(data)
            comfy.post("/interrupt", {})

    return pressed, during


@pytest.mark.parametrize("format", ["mp4", "webm", "webp"])
def test_the_button_ends_combine_video(comfy, format):
    comfy.empty()
    graph = {
        "1": node("EmptyImage", width=256, height=256, batch_size=300, color=0),
        "2": turbo("CombineVideo", images=["1", 0], filename_prefix="cut", format=format, **COMBINE | ({"pingpong": True} if format == "webp" else {"loop_count": 20})),
    }
    pressed, during = interrupted(comfy, "2")
    run = comfy.run(graph, during=during)
    assert pressed and run.of("execution_interrupted") and not run.error
    assert not [path for path in (comfy.base / "output").rglob("*") if path.is_file()]


def test_the_button_ends_load_video_frames(comfy):
    graph = {
        "1": node("EmptyImage", width=256, height=256, batch_size=100, color=0),
        "2": turbo("CombineVideo", images=["1", 0], filename_prefix="long", format="mp4", **COMBINE | {"loop_count": 20}),
    }
    run = comfy.run(graph)
    (made,) = run.output("2")["images"]
    (comfy.base / "input").mkdir(exist_ok=True)
    (comfy.base / "output" / made["filename"]).rename(comfy.base / "input" / "long.mp4")
    load = {"5": turbo("LoadVideoFrames", file="long.mp4", fps=0.0, first_n_seconds=0.0, skip_seconds=0.0, max_frames=0), "6": node("PreviewImage", images=["5", 0])}
    pressed, during = interrupted(comfy, "5")
    run = comfy.run(load, during=during)
    assert pressed and run.of("execution_interrupted") and not run.error and "6" not in run.executed
