"""The tiny world and its judge: what is rendered is seen, and what is wrong is seen too."""

import random

import pytest
import torch

from animatediff_turbo.headless.tiny import score, tokenizer, words, world


@pytest.fixture(scope="module")
def truth():
    rng = random.Random(0)
    scenes = [world.place(scene, rng) for scene in world.HELD_OUT]
    return [(scene, world.render(scene)) for scene in scenes]


def test_384_combinations_of_which_48_are_held_out_evenly():
    assert len(world.COMBINATIONS) == 384 and len(world.HELD_OUT) == 48 and len(world.TRAINED) == 336
    assert not set(world.HELD_OUT) & set(world.TRAINED)
    for attribute, values in (("shape", world.SHAPES), ("colour", world.COLOURS), ("direction", world.DIRECTIONS), ("background", world.BACKGROUNDS)):
        counts = [sum(getattr(scene, attribute) == value for scene in world.HELD_OUT) for value in values]
        assert len(set(counts)) == 1, attribute


def test_every_value_of_an_attribute_is_trained_with_every_value_of_another():
    for first, second in (("shape", "colour"), ("colour", "direction"), ("direction", "background"), ("shape", "direction"), ("colour", "background")):
        pairs = {(getattr(scene, first), getattr(scene, second)) for scene in world.COMBINATIONS}
        assert {(getattr(scene, first), getattr(scene, second)) for scene in world.TRAINED} == pairs


def test_ground_truth_scores_everything(truth):
    result = score.score(truth)
    assert (result.colour, result.direction, result.shape, result.background) == (1, 1, 1, 1)
    assert result.r2 > 0.999 and result.flicker < 0.1 and result.area_change < 0.01


def test_noise_and_blur_that_a_person_looks_through_change_no_answer(truth):
    generator = torch.Generator().manual_seed(0)
    blurred = [
        (scene, torch.nn.functional.avg_pool2d(clip.permute(0, 3, 1, 2), 5, 1, 2).permute(0, 2, 3, 1) + 0.03 * torch.randn(clip.shape, generator=generator))
        for scene, clip in truth
    ]
    result = score.score(blurred)
    assert (result.colour, result.direction, result.background) == (1, 1, 1) and result.shape >= 0.9


def test_shuffled_captions_score_at_chance(truth):
    order = list(range(len(truth)))
    random.Random(1).shuffle(order)
    result = score.score((truth[other][0], clip) for other, (_, clip) in zip(order, truth, strict=True))
    assert result.colour < 0.3 and result.direction < 0.45 and result.shape < 0.45


@pytest.mark.parametrize(
    ("spoil", "seen"),
    [
        (lambda clip: clip.flip(0), lambda verdict, scene: verdict.direction != scene.direction and verdict.shape == scene.shape),
        (lambda clip: clip[[0] * 16], lambda verdict, scene: verdict.direction == "none"),
        (lambda clip: clip[torch.randperm(16, generator=torch.Generator().manual_seed(0))], lambda verdict, scene: verdict.r2 < 0.6),
        (lambda clip: clip * torch.linspace(0.8, 1, 16)[torch.arange(16) % 2 * 15, None, None, None], lambda verdict, scene: verdict.flicker > 0.3),
        (lambda clip: clip + 0.2 * (torch.arange(16) % 2)[:, None, None, None] * (torch.arange(128) < 40)[None, :, None, None], lambda verdict, scene: verdict.flicker > 2),
        (lambda clip: clip[:, :1, :1].expand_as(clip), lambda verdict, scene: verdict == score.NOTHING),
    ],
    ids=["backward", "still", "shuffled", "flickering", "flickering in places", "empty"],
)
def test_the_judge_sees_what_is_wrong(truth, spoil, seen):
    scene, clip = truth[0]
    assert seen(score.judge(spoil(clip)), scene)


def test_a_shape_that_grows_is_seen(truth):
    _, clip = truth[0]
    larger = torch.nn.functional.interpolate(clip[8:].permute(0, 3, 1, 2), scale_factor=1.5, mode="bilinear").permute(0, 2, 3, 1)[:, 32:160, 32:160]
    assert score.judge(torch.cat((clip[:8], larger))).area_change > 0.5


def test_shapes_never_leave_the_picture():
    rng = random.Random(2)
    for scene in world.COMBINATIONS:
        centres = world.place(scene, rng).centres()
        assert float(centres.min()) >= world.REACH - 1e-3 and float(centres.max()) <= world.SIDE - world.REACH + 1e-3


def test_crossing_ways_pass_the_middle():
    rng = random.Random(2)
    placed = [world.place(scene, rng, world.CROSSING) for scene in world.COMBINATIONS]
    off = torch.tensor([(scene.x, scene.y) if world.DIRECTIONS[scene.direction][0] else (scene.y, scene.x) for scene in placed]) - world.SIDE / 2
    along, across = off.abs().amax(0).tolist()
    assert 5 < along <= 6 and 25 < across <= 28


def test_every_caption_is_made_of_known_words_that_name_the_scene():
    known, rng = tokenizer.build(), random.Random(3)
    for scene in world.COMBINATIONS * 5:
        text = words.caption(scene, rng)
        tokens = known(text).input_ids
        assert known.unk_token_id not in tokens and len(tokens) <= known.model_max_length, text
        for word in (scene.shape, scene.colour, scene.direction, scene.background):
            assert any(name.split()[-1] in text.replace(",", "").split() for name in words.SYNONYMS.get(word, (word,))), text


def test_captions_differ():
    rng = random.Random(4)
    texts = {words.caption(world.COMBINATIONS[0], rng) for _ in range(200)}
    assert len(texts) > 100 and world.COMBINATIONS[0].prompt in texts


def test_the_tokenizer_takes_any_text():
    known = tokenizer.build()
    start, end, unknown = 0, 1, known.unk_token_id
    assert known("").input_ids == [start, end]
    assert known("Zebra").input_ids == [start, unknown, end]
    assert known("RED\tcircle,").input_ids == known("red circle ,").input_ids
    assert known.convert_ids_to_tokens(known("a 8k x").input_ids) == ["<|startoftext|>", "a", "8k", "<|unknown|>", "<|endoftext|>"]
