"""The recipe of the tiny model: every stage runs, what it writes is what others read, and the losses are what they say."""

import json
from dataclasses import replace

import pytest
import torch
from diffusers import StableDiffusionPipeline
from safetensors.torch import load_file

from animatediff_turbo.headless.diffusion import clean, predict
from animatediff_turbo.headless.motion import attached
from animatediff_turbo.headless.tiny import autoencoder, evaluate, export, latents, loop, networks, report, stages, text, tokenizer, train, words, world
from animatediff_turbo.headless.tiny.loop import Budget, Dice
from animatediff_turbo.motion_modules import checkpoint, sampling, schedule
from animatediff_turbo.motion_modules.config import TINY
from animatediff_turbo.weights import TINY_BASE

ONE = Budget(1, 1e-4)
SMALL = train.Recipe(vae=ONE, text=ONE, image=ONE, motion=ONE, distillation=ONE, clips=2, crossings=2, stills=2, videos=1, guidance=2.0, substeps=2)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained")
    train.run(folder, 0, SMALL)
    return folder


@pytest.fixture(scope="module")
def stack():
    torch.manual_seed(0)
    known = tokenizer.build()
    return stages.Stack(known, networks.text_encoder(len(known)).eval(), networks.unet().eval().requires_grad_(False), schedule.sigma_table("linear"))


@pytest.fixture(scope="module")
def motion():
    torch.manual_seed(1)
    return networks.motion().eval().requires_grad_(False)


def test_diffusers_loads_the_base(trained):
    pipeline = StableDiffusionPipeline.from_pretrained(trained / "tiny_sd15", local_files_only=True, low_cpu_mem_usage=False).to(torch.float32)
    assert tuple(pipeline.unet.config.block_out_channels) == networks.WIDTHS
    assert pipeline.tokenizer("a red circle").input_ids == tokenizer.build()("a red circle").input_ids
    for folder in (trained / "tiny_sd15", TINY_BASE):  # a name that transformers 4 knows too
        assert json.loads((folder / "tokenizer" / "tokenizer_config.json").read_text())["tokenizer_class"] == "PreTrainedTokenizerFast"
    assert pipeline.scheduler.config.beta_schedule == TINY.beta_schedule and pipeline.vae.config.scaling_factor == networks.LATENT_SCALE
    image = pipeline("a red circle", num_inference_steps=1, guidance_scale=1.0, height=64, width=64, output_type="pt").images
    assert image.shape == (1, 3, 64, 64)


def test_the_text_encoder_has_the_names_that_comfyui_reads(trained):
    names = load_file(trained / "tiny_sd15" / "text_encoder" / "model.safetensors")
    assert {"text_model.embeddings.token_embedding.weight", "text_model.encoder.layers.0.self_attn.q_proj.weight", "text_model.final_layer_norm.bias"} <= names.keys()


def test_the_motion_modules_are_animatediff_files(trained):
    for name in ("tiny_turbo_motion.safetensors", evaluate.UNDISTILLED):
        found = checkpoint.load(trained / name)
        assert found.layout.widths == networks.WIDTHS and not found.layout.mid_block and found.positions == 32
        assert {tensor.dtype for tensor in found.state_dict.values()} == {torch.float16}


def test_everything_together_fits_into_16_mebibytes(trained):
    files = [*(trained / "tiny_sd15").rglob("*.*"), trained / "tiny_turbo_motion.safetensors"]
    assert sum(path.stat().st_size for path in files) <= 16 * 2**20


def test_a_second_run_changes_nothing(trained):
    before = {path: export.sha256(path) for path in trained.rglob("*.safetensors")}
    train.run(trained, 0, SMALL)
    assert {path: export.sha256(path) for path in trained.rglob("*.safetensors")} == before and len(before) == 5


def test_a_given_base_keeps_its_weights_and_gets_a_motion_module(tmp_path):
    train.run(tmp_path / "run", 0, SMALL, base=TINY_BASE)
    for path in TINY_BASE.rglob("*.*"):
        assert (tmp_path / "run" / TINY_BASE.name / path.relative_to(TINY_BASE)).read_bytes() == path.read_bytes(), path
    assert {path.stem for path in (tmp_path / "run").glob("*.csv")} == {"motion", "distillation"}
    with pytest.raises(ValueError, match="another seed, recipe or base"):
        train.run(tmp_path / "run", 0, SMALL)
    assert "- motion: 1: " in report.write(tmp_path / "run", 0, SMALL, rows=("1 step",), pairs=world.TEST_PAIRS[:1]).read_text()


def test_a_base_of_other_widths_is_refused_before_anything_is_copied(tmp_path):
    pipeline = StableDiffusionPipeline.from_pretrained(TINY_BASE, local_files_only=True, low_cpu_mem_usage=False)
    wider = {**pipeline.unet.config, "block_out_channels": (64, 64, 64, 96)}
    pipeline.unet = type(pipeline.unet).from_config(wider)
    pipeline.save_pretrained(tmp_path / "wider")
    with pytest.raises(ValueError, match=r"wider is \(64, 64, 64, 96\) wide where the tiny motion module is"):
        train.run(tmp_path / "run", 0, SMALL, base=tmp_path / "wider")
    assert not (tmp_path / "run").exists()


def test_the_report_names_scores_losses_and_hashes(trained):
    text = report.write(trained, 0, SMALL, rows=("1 step",), pairs=world.TEST_PAIRS[:2]).read_text()
    assert "| 1 step | " in text and export.sha256(trained / "tiny_turbo_motion.safetensors") in text and "- vae: 1: " in text
    assert (trained / "contact_sheet.png").stat().st_size > 1000


def test_a_folder_belongs_to_one_seed_and_recipe(trained):
    for seed, recipe in ((1, SMALL), (0, replace(SMALL, stills=SMALL.stills + 1))):
        with pytest.raises(ValueError, match=r"holds a training with another seed, recipe or base \(see run.json\)"):
            train.run(trained, seed, recipe)


def test_an_interrupted_report_goes_on_with_the_rows_it_has(trained):
    def write(pairs):
        return report.write(trained, 0, SMALL, rows=("1 step",), pairs=pairs).read_text()

    text = write(world.TEST_PAIRS[:1])
    (kept,) = (path for path in (trained / "scores").iterdir() if path.read_text() in text)
    kept.write_text("| 1 step | from before |")
    assert "from before" in write(world.TEST_PAIRS[:1]) and "from before" not in write(world.TEST_PAIRS[1:2])


def test_normalised_latents_have_unit_deviation_and_decode_to_the_same_picture():
    torch.manual_seed(3)
    vae = networks.vae().eval().requires_grad_(False)
    x = autoencoder.pictures(Dice.of(0, "test"), 4, 64, 2)
    raw = vae.encode(x).latent_dist
    before = vae.decode(raw.mean).sample
    autoencoder.normalise(vae, raw.mean)
    found = vae.encode(x).latent_dist
    scaled = found.mean * networks.LATENT_SCALE
    assert torch.allclose(scaled.mean((0, 2, 3)), torch.zeros(4), atol=1e-4) and torch.allclose(scaled.std((0, 2, 3)), torch.ones(4), atol=1e-4)
    assert torch.allclose(vae.decode(found.mean).sample, before, atol=1e-4)
    ratio = (found.std / raw.std).mean((0, 2, 3)) / (found.mean.std((0, 2, 3)) / raw.mean.std((0, 2, 3)))
    assert torch.allclose(ratio, torch.ones(4), atol=1e-3)  # the posterior shrinks with the mean


def test_clips_are_of_trained_combinations_at_many_places():
    scenes = [latents.scene(0, index, world.ANYWHERE) for index in range(2 * len(world.TRAINED))]
    assert not {(scene.shape, scene.colour, scene.direction, scene.background) for scene in scenes} & {
        (scene.shape, scene.colour, scene.direction, scene.background) for scene in world.HELD_OUT
    }
    assert len({(scene.x, scene.y) for scene in scenes}) == len(scenes)


def test_the_noise_loss_is_the_weighted_error_of_the_noise(stack):
    x, text = torch.zeros(2, 4, 16, 16), stack.encode(["a red circle", ""])
    timesteps = torch.tensor([100, 900])
    found = stages.noise_loss(stack, x, timesteps, text, Dice.of(1))
    noise = torch.randn(x.shape, generator=Dice.of(1).torch)
    sigma = stack.sigmas[timesteps]
    error = (predict(stack.unet, sigma[:, None, None, None] * noise, sigma, timesteps, text) - noise).square().mean((1, 2, 3))
    snr = sigma**-2
    assert torch.isclose(found, (error * snr.clamp(max=5) / snr * torch.maximum(sigma, torch.tensor(1.0))).mean())


def test_a_hidden_picture_is_asked_for_all_the_same(stack):
    """What is asked for is the noise that would have led from the picture to what the UNet sees; with the picture in sight that is the noise."""
    generator = torch.Generator().manual_seed(2)
    x, text = torch.randn(2, 4, 16, 16, generator=generator), stack.encode(["a red circle", ""])
    timesteps = torch.tensor([500, 999])
    found = stages.noise_loss(stack, x, timesteps, text, Dice.of(1), torch.tensor([False, True]))
    sigma = stack.sigmas[timesteps][:, None, None, None]
    seen = torch.stack([x[0], torch.zeros_like(x[1])]) + sigma * torch.randn(x.shape, generator=Dice.of(1).torch)
    wanted = (seen - x) / sigma
    error = (predict(stack.unet, seen, sigma.flatten(), timesteps, text) - wanted).square().mean((1, 2, 3))
    assert torch.isclose(found, (error * sigma.flatten().clamp(min=1)).mean())


def test_motion_is_trained_on_blank_clips_too(stack, motion):
    """Where sampling starts there is no picture: some steps see the last timestep with nothing but noise."""
    seen = []
    handle = stack.unet.register_forward_pre_hook(lambda module, arguments, kwargs: seen.append((arguments, kwargs)), with_kwargs=True)
    clips, scenes = torch.full((1, world.FRAMES, 4, 8, 8), 1e4), [world.HELD_OUT[0]]
    with torch.no_grad():
        for step in range(20):
            stages.motion_loss(stack, motion, clips, scenes, 1, Dice.of(step))
    handle.remove()
    tensors = [[each for each in (*arguments, *kwargs.values()) if isinstance(each, torch.Tensor)] for arguments, kwargs in seen]
    blank = [step for step in tensors if step[0].abs().max() < 100]
    assert 1 <= len(blank) <= 10 and all(int(each.max()) == 999 for _, each, *_ in blank)


def test_the_teachers_path_is_eulers(stack, motion):
    """To the end: what `sample_euler` gives on the same timesteps, with guidance."""
    generator = torch.Generator().manual_seed(4)
    x = 25 * torch.randn(world.FRAMES, 4, 8, 8, generator=generator)
    text, empty = stack.encode(["a red circle"]).expand(world.FRAMES, -1, -1), stack.encode([""]).expand(world.FRAMES, -1, -1)
    found = stages._solve(stack, stages.Teacher(motion, 2.0, 3), x, 999, None, text, empty)

    def model(x, sigma):
        timesteps = (stack.sigmas - sigma[0]).abs().argmin().expand(len(x))
        with_text, without = (clean("epsilon", x, sigma, predict(stack.unet, x, sigma, timesteps, each)) for each in (text, empty))
        return without + 2 * (with_text - without)

    with attached(stack.unet, motion, world.FRAMES):
        expected = sampling.sample_euler(model, x, torch.cat([stack.sigmas[[999, 666, 333]], torch.zeros(1)]))
    assert torch.allclose(found, expected, atol=1e-3, rtol=1e-3)


def test_distillation_trains_the_motion_module_alone(stack, motion):
    student = networks.motion()
    student.load_state_dict(motion.state_dict())
    clips, scenes = torch.zeros(1, world.FRAMES, 4, 16, 16), [world.HELD_OUT[0]]
    loss = stages.consistency_loss(stack, student, stages.Teacher(motion, 1.0, 1), TINY, clips, scenes, 1, Dice.of(5))
    loss.backward()
    assert loss.item() > 0 and all(parameter.grad is not None for parameter in student.parameters())
    assert all(parameter.grad is None for module in (stack.unet, motion) for parameter in module.parameters())


def test_distillation_sees_the_students_own_clips_too(stack, motion):
    """Sampled as the adapter is, from nothing but noise down to the level; true clips are recognised by their size."""
    seen = []
    handle = stack.unet.register_forward_pre_hook(lambda module, arguments, kwargs: seen.append((arguments, kwargs)), with_kwargs=True)
    clips, scenes = torch.full((1, world.FRAMES, 4, 8, 8), 1e4), [world.HELD_OUT[0]]
    steps = {}
    for number in range(24):
        seen.clear()
        with torch.no_grad():
            stages.consistency_loss(stack, motion, stages.Teacher(motion, 1.0, 1), TINY, clips, scenes, 1, Dice.of(number))
        calls = [[each for each in (*arguments, *kwargs.values()) if isinstance(each, torch.Tensor)] for arguments, kwargs in seen]
        level = int(calls[-1][1].max())
        own = bool(calls[-1][0].abs().max() < 1e3)
        before = [int(call[1].max()) for call in calls[: -2 - (level > 124)]]
        assert before == ([t for t in (999, 749, 499, 249) if t > level] if own else []) and (own or level < 999)
        steps.setdefault(own, []).append(level)
    handle.remove()
    assert len([level for level in steps[True] if level < 999]) >= 4 and len(steps[False]) >= 4


def test_every_loss_stays_on_its_device():
    """Tensors of the meta device mix with the CPU's as badly as a GPU's do."""
    known = tokenizer.build()
    text_encoder, unet, *motions = (each.to("meta") for each in (networks.text_encoder(len(known)), networks.unet(), networks.motion(), networks.motion()))
    on_meta = stages.Stack(known, text_encoder, unet, schedule.sigma_table("linear").to("meta"))
    clips, scenes = torch.zeros(1, world.FRAMES, 4, 16, 16, device="meta"), [world.HELD_OUT[0]]
    vae = autoencoder.prepare(networks.vae()).to("meta")
    losses = [
        autoencoder.loss(vae, Dice.of(1)),
        text.loss(text.Reader(known, text_encoder).to("meta"), Dice.of(1)),
        stages.image_loss(on_meta, clips, scenes, 2, Dice.of(1)),
        stages.motion_loss(on_meta, motions[0], clips, scenes, 1, Dice.of(1)),
        *(
            stages.consistency_loss(on_meta, motions[0], stages.Teacher(motions[1], 2.0, 2), replace(TINY, distilled_steps=levels), clips, scenes, 1, Dice.of(1))
            for levels in (1, 8)
        ),
    ]
    assert all(loss.device.type == "meta" and loss.shape == () for loss in losses)
    raw = latents.sample(vae, 0, 2)
    autoencoder.normalise(vae, raw)
    assert raw.device.type == "meta"


def test_the_text_encoder_learns_to_read_in_seconds(tmp_path):
    """Wordings of combinations that it never saw; an untrained one is at chance."""
    torch.manual_seed(0)
    reader = text.Reader(tokenizer.build(), networks.text_encoder(len(tokenizer.build())))
    loop.train("text", reader, lambda dice: text.loss(reader, dice), Budget(200, 3e-3, warm_up=20), tmp_path, 0)
    dice = Dice.of("unseen")
    with torch.no_grad():
        logits, behind = reader([words.caption(scene, dice.python) for scene in world.HELD_OUT])
    for name, values in text.ATTRIBUTES.items():
        right = torch.tensor([values.index(getattr(scene, name)) for scene in world.HELD_OUT])
        assert behind[:, -1].all() and (logits[name][:, -1].argmax(-1) == right).float().mean() >= 0.95, name


def test_more_draws_mean_more_noise_and_one_is_uniform():
    """The largest of n uniform draws has the mean n / (n + 1)."""
    for draws in (1, 3):
        found = Dice.of(draws).timesteps(20000, torch.device("cpu"), draws)
        assert found.min() >= 0 and found.max() == 999 and abs(float(found.double().mean()) / 1000 - draws / (draws + 1)) < 0.01


def test_some_captions_are_dropped():
    texts = [stages.caption(world.HELD_OUT[0], Dice.of(index)) for index in range(300)]
    assert 10 < texts.count("") < 60
