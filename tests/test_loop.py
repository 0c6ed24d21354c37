"""Training goes on after a kill as if nothing had happened."""

import torch

from animatediff_turbo.headless.tiny import loop
from animatediff_turbo.headless.tiny.loop import Budget, Dice


class Killed(Exception):
    pass


def problem(killed_at=None):
    generator = torch.Generator().manual_seed(0)
    layer = torch.nn.Sequential(torch.nn.Flatten(0), torch.nn.Unflatten(0, (1, -1)))
    layer.weight = torch.nn.Parameter(torch.randn(4, generator=generator))
    layer.frozen = torch.nn.Parameter(torch.ones(2), requires_grad=False)
    calls = []

    def loss(dice: Dice):
        if len(calls) == killed_at:
            raise Killed
        calls.append(dice.python.random())
        return (layer.weight - torch.randn(4, generator=dice.torch)).square().sum()

    return layer, loss, calls


def run(folder, killed_at=None, steps=137, seed=3):
    layer, loss, calls = problem(killed_at)
    try:
        loop.train("stage", layer, loss, Budget(steps, 1e-2), folder, seed)
    except Killed:
        return None, len(calls)
    return layer.weight.detach().clone(), len(calls)


def test_a_killed_run_ends_with_the_same_weights(tmp_path):
    whole, pieces = tmp_path / "whole", tmp_path / "pieces"
    whole.mkdir()
    pieces.mkdir()
    expected, count = run(whole)
    assert count == 137
    assert run(pieces, killed_at=61) == (None, 61)
    assert run(pieces, killed_at=30) == (None, 30)  # dies before the next save
    found, count = run(pieces)
    assert torch.equal(found, expected) and count == 87
    assert (pieces / "stage.csv").read_text() == (whole / "stage.csv").read_text()


def test_a_finished_stage_is_not_run_again(tmp_path):
    first, _ = run(tmp_path)
    again, count = run(tmp_path)
    assert count == 0 and torch.equal(first, again)


def test_a_kill_while_saving_leaves_the_save_before(tmp_path):
    run(tmp_path, killed_at=61)
    (tmp_path / "stage.partial").write_bytes(b"half a file")
    assert run(tmp_path)[1] == 87


def test_seeds_stages_and_steps_have_dice_of_their_own():
    draws = {Dice.of(*key).python.random() for key in ((0, "a", 1), (0, "a", 2), (0, "b", 1), (1, "a", 1))}
    assert len(draws) == 4
    assert torch.equal(torch.randn(3, generator=Dice.of(0, "a").torch), torch.randn(3, generator=Dice.of(0, "a").torch))


def test_the_rate_rises_then_falls():
    budget = Budget(1000, 1.0, warm_up=100)
    rates = [budget.rate_at(step) for step in range(1000)]
    assert rates[0] < 0.02 and rates[99] > 0.95 and rates[-1] < 0.06 and max(rates) <= 1


def test_a_line_of_the_log_that_was_cut_is_written_anew(tmp_path):
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    whole.mkdir()
    cut.mkdir()
    run(whole)
    run(cut, killed_at=61)
    log = cut / "stage.csv"
    log.write_text(log.read_text()[:-3])
    run(cut)
    assert log.read_text() == (whole / "stage.csv").read_text()
