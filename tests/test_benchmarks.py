"""The benchmarks' arithmetic: what is counted, compared and written. No clock is tested."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"
sys.path.append(str(BENCHMARKS))

import checklist
import contestants
import fleet
import gate
import items
import pack
import scenarios
import sections
import stats


def test_a_spread_is_the_median_and_its_percentiles():
    assert stats.spread([5.0, 1.0, 3.0, 2.0, 4.0]) == stats.Spread(3.0, 1.4, 4.6, 5)
    assert stats.spread([7.0]) == stats.Spread(7.0, 7.0, 7.0, 1)


def test_a_ratio_is_of_medians_and_no_best_run_moves_it():
    middle, low, high = stats.ratio([20.0] * 14 + [1.0], [10.0] * 15)
    assert middle == low == high == 2.0


def test_the_interval_holds_the_true_ratio_in_about_95_of_100_samples():
    rng = np.random.default_rng(1)
    held = 0
    for trial in range(200):
        slow, fast = (list(mean * rng.lognormal(0, 0.1, 20)) for mean in (3.0, 2.0))
        _, low, high = stats.ratio(slow, fast, draws=400, seed=trial)
        held += low <= 1.5 <= high
    assert 180 <= held <= 200


def test_the_interval_narrows_with_more_runs():
    rng = np.random.default_rng(2)
    widths = []
    for count in (5, 100):
        _, low, high = stats.ratio(list(rng.normal(10, 1, count)), list(rng.normal(5, 0.5, count)))
        widths.append(high - low)
    assert widths[1] < widths[0] / 2


def test_contestants_take_turns():
    assert stats.interleaved(["A", "B", "C"], 2) == ["A", "B", "C", "A", "B", "C"]


ONE = [[2, 32]] * 4


def test_unequal_work_fails():
    verdicts = gate.same_work({"fair": ONE, "skips a step": ONE[:3], "one cond": [[1, 16]] * 4, "windows": [[2, 32]] * 12}, 128, 4)
    assert [verdict.passed for verdict in verdicts] == [True, False, False, False]
    assert verdicts[1].names == ("skips a step",) and "96 of 128" in verdicts[1].text


def test_cond_and_uncond_one_after_the_other_are_said_and_are_the_same_work():
    (verdict,) = gate.same_work({"split": [[1, 16]] * 8}, 128, 4)
    assert verdict.passed and "not one batch" in verdict.text
    assert gate.counted([[1, 16]] * 8) == (8, 128)


def test_rounding_in_half_precision_is_measured_against_the_peers_own():
    exact = torch.ones(1000)
    peer = exact + 0.01
    assert gate.rounding("ours", exact - 0.012, "ADE", peer, True, exact).passed
    assert not gate.rounding("ours", exact - 0.013, "ADE", peer, True, exact).passed
    assert not gate.rounding("ours", exact * float("nan"), "ADE", peer, True, exact).passed


def test_half_precision_is_not_measured_by_float32s_bound_where_the_reference_is_missing():
    verdict = gate.rounding("ours", torch.ones(1000), "ADE", torch.ones(1000), True)
    assert not verdict.passed and "float32 is not there" in verdict.text


def test_float32_runs_differ_by_a_ten_thousandth_at_most():
    peer = torch.ones(1000)
    assert gate.rounding("ours", peer * 1.00009, "ADE", peer, False).passed
    assert not gate.rounding("ours", peer * 1.00011, "ADE", peer, False).passed


def test_latents_that_are_not_finite_or_of_another_shape_fail():
    latents = torch.zeros(16, 4, 8, 8)
    assert gate.sound("ours", latents, (16, 4, 8, 8)).passed
    assert not gate.sound("ours", latents, (16, 4, 8, 16)).passed
    assert not gate.sound("ours", latents / 0, (16, 4, 8, 8)).passed


def test_a_section_replaces_its_own_and_leaves_the_others(tmp_path):
    path = tmp_path / "RESULTS.md"
    sections.write(path, "GPU", "first\n\n### Table\n\n| a |")
    sections.write(path, "CPU", "second")
    before = path.read_text().partition("## CPU")[2]
    sections.write(path, "GPU", "third")
    text = path.read_text()
    assert text.startswith(sections.TITLE) and text.count("## GPU") == text.count("## CPU") == 1
    assert "first" not in text and "### Table" not in text and "third" in text
    assert text.partition("## CPU")[2] == before
    assert text.index("## GPU") < text.index("## CPU")


def test_a_section_is_found_by_its_whole_title():
    text = sections.replaced(sections.replaced("", "GPU, sweeps", "kept"), "GPU", "new")
    assert "kept" in text and "new" in text


def test_a_scenario_counts_its_work():
    clip = scenarios.Scenario("", 16, 8, 2.0)
    assert (clip.conds, clip.cond_frames, clip.shape) == (2, 256, (2, 16, 512))
    assert clip.shape != replace(clip, frames=32, guidance=1.0).shape, "as many rows, and another video"
    assert (replace(clip, guidance=1.0).conds, clip.one_step().cond_frames) == (1, 32)


def test_scenarios_are_chosen_by_set_or_by_numbers():
    assert scenarios.chosen(["headline"], "cuda") == list(scenarios.HEADLINE)
    assert scenarios.chosen([], "cpu") == list(scenarios.EVALUATION)
    (clip,) = scenarios.chosen(["8,2,1.5,256"], "cpu")
    assert (clip.frames, clip.steps, clip.guidance, clip.side, clip.tail) == (8, 2, 1.5, 256, True)
    with pytest.raises(SystemExit, match="unknown"):
        scenarios.chosen(["everything"], "cpu")


def test_every_contestants_peer_runs_with_the_same_flags():
    for row in contestants.ROWS.values():
        assert row.peer in ("", *contestants.ROWS)
        if row.peer:
            assert contestants.ROWS[row.peer].flags == row.flags
    with pytest.raises(SystemExit, match="choose among"):
        contestants.by_name(["nobody"])


@pytest.mark.parametrize(
    ("name", "baseline", "label"),
    [
        ("ours", "ADE", "exact"), ("ours", "ADE, torch's attention", "exact; other flags"), ("ours, stock flags", "ADE, stock flags", "exact"),
        ("ours", "diffusers", contestants.OTHER_MATHS), ("diffusers", "ADE", contestants.OTHER_MATHS), ("ADE, stock flags", "ADE", "other precision; other flags"),
        ("ADE", "ours", ""), ("ours", "ours, stock flags", ""), ("ADE", "ADE", ""), ("diffusers", "ADE, stock flags", ""),
    ],
)  # fmt: skip
def test_this_pack_is_measured_against_everybody_and_everybody_against_ade(name, baseline, label):
    assert contestants.label(contestants.ROWS[name], contestants.ROWS[baseline]) == label


def test_another_commands_section_is_not_replaced_unasked(tmp_path):
    path = tmp_path / "RESULTS.md"
    sections.check(path, "GPU", "python a.py", False)
    sections.write(path, "GPU", "* Command: `python a.py`; more")
    sections.check(path, "GPU", "python a.py", False)
    sections.check(path, "GPU", "python b.py", True)
    sections.check(path, "GPU, sweeps", "python b.py", False)
    with pytest.raises(SystemExit, match="figures of another command.*--replace"):
        sections.check(path, "GPU", "python b.py", False)


def test_an_item_that_fails_keeps_what_it_had_and_says_why(tmp_path):
    written = []
    lines = checklist.run(6, 60, ["--device", "cpu", "--out", str(tmp_path)], tmp_path, written.append)
    assert written == [["| M | K | N | float8 | float16 |", "| --- | --- | --- | --- | --- |"]]
    assert lines[:2] == written[0] and "Failed: RuntimeError: fp8 products are for GPUs" in lines


def test_a_table_tells_its_rows_as_they_come():
    told = []
    table = items.Bench(False, 0.0, Path(), tell=told.append).table("shape", "ms")
    table.add("8x8", 1.234)
    assert told == [["shape", "ms"], ["8x8", "1.23"]] == [table.columns, *table.rows]


def test_a_worker_that_fails_is_reported_by_the_last_line_of_its_log(tmp_path):
    row = replace(contestants.CONTESTANTS[0], host="no_such_host")
    worker = fleet.Worker(row, {"out": str(tmp_path), "weights": "", "comfyui": "", "ade": "", "size": "full", "dtype": "float32", "device": "cpu"})
    with pytest.raises(fleet.Failed, match="No module named 'no_such_host'"):
        worker.wait_ready(60)
    assert not worker.alive


def test_the_pack_is_this_checkout_whatever_is_installed():
    code = f"import sys; sys.path.insert(0, {str(BENCHMARKS)!r}); import pack; pack.load(); import animatediff_turbo.schema as schema; print(schema.__file__)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd="/").stdout.strip()
    assert Path(found) == pack.ROOT / "schema.py"
