"""What the tiny model in the package shows, judged by pixels; the same on all 96 held-out pairs is in headless/tiny/report.md."""

import random
from pathlib import Path

import pytest

import animatediff_turbo.headless.tiny
from animatediff_turbo.headless.tiny import evaluate, export, score, world
from animatediff_turbo.weights import TINY_BASE, TINY_MOTION

PAIRS = 16


@pytest.fixture(scope="module")
def stack():
    return evaluate.stacks(TINY_BASE.parent)(evaluate.ROWS["4 steps"])


@pytest.fixture(scope="module")
def clips(stack):
    return list(evaluate.clips(stack, world.some_pairs(PAIRS), 4))


def test_unseen_prompts_are_shown(clips):
    found = score.score(clips)
    assert found.colour >= 15 / PAIRS and found.direction >= 14 / PAIRS and found.shape >= 13 / PAIRS and found.background >= 15 / PAIRS, found
    assert found.r2 >= 0.95 and found.flicker <= 2 and found.area_change <= 0.25, found


def test_shuffled_prompts_are_not(clips):
    scenes = [scene for scene, _ in clips]
    random.Random(0).shuffle(scenes)
    found = score.score(zip(scenes, (clip for _, clip in clips), strict=True))
    assert found.colour <= 0.5 and found.direction <= 0.6 and found.shape <= 0.6, found


def test_two_seeds_of_one_prompt_differ_visibly(stack):
    scene = world.HELD_OUT[0]
    (_, first), (_, second) = evaluate.clips(stack, [(scene, 1), (scene, 2)], 4)
    assert float((first - second).abs().amax(-1).gt(0.2).float().mean()) > 0.02


def test_the_report_is_about_these_weights():
    text = (Path(animatediff_turbo.headless.tiny.__file__).parent / "report.md").read_text(encoding="utf-8")
    for path in (*TINY_BASE.rglob("*.safetensors"), TINY_MOTION):
        assert export.sha256(path) in text, path.name
