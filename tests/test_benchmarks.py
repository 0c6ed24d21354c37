"""The benchmarks' arithmetic: what is counted, compared and written. No clock is tested."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"
sys.path.append(str(BENCHMARKS))

import checklist
import checks
import contestants
import fleet
import gate
import items
import pack
import scenarios
import sections
import series
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


ROWS = {row.name: row for row in contestants.CONTESTANTS}


def test_every_contestants_peer_runs_with_the_same_flags():
    for row in ROWS.values():
        assert row.peer in ("", *ROWS)
        if row.peer:
            assert ROWS[row.peer].flags == row.flags
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
    assert contestants.label(ROWS[name], ROWS[baseline]) == label


class Process:
    """A contestant that answers at once, until it has said so often; then it has ended."""

    def __init__(self, name: str, answers: int = 10**6, latents: torch.Tensor | None = None):
        self.row, self.left, self.latents, self.process, self.alive, self.about = ROWS[name], answers, latents, self, True, {}
        self.pid = name.replace(" ", "_")

    def send(self, command: dict) -> None:
        self.asked = command

    def receive(self, seconds: float) -> dict:
        self.left -= 1
        if self.left < 0:
            self.alive = False
            raise fleet.Failed("ended with 1: out of memory")
        if "keep" in self.asked:
            save_file({"latents": self.latents}, self.asked["keep"])
        scenario = scenarios.Scenario(**self.asked["scenario"])
        return {"times": {"denoise": 1.0}, "evaluations": [[2, scenario.conds * scenario.frames]] * scenario.steps, "memory": {}}


CLIP = scenarios.Scenario("clip", 16, 8, 2.0)


def played(tmp_path, processes: list[Process], met=(), budget: float = 1000, seconds: float = 10, **how) -> tuple[series.Book, dict]:
    book = series.Book(tmp_path / "raw.jsonl", lambda text: None)
    crew = {process.row.name: process for process in processes}
    playing = series.Series(book, series.Clock(budget), **{"rounds": 5, "warmup": 1, "met": set(met)} | how)
    playing.play(CLIP, crew, seconds)
    return book, {name: len(answers) for name, answers in book.answers.get(CLIP, {}).items()}


def test_a_compiled_contestant_without_time_to_compile_is_left_out_of_the_next_scenario_of_the_shape_as_well(tmp_path):
    met: set = set()
    book = series.Book(tmp_path / "raw.jsonl", lambda text: None)
    crew = {name: Process(name) for name in ("ours", "ours, compiled")}
    playing = series.Series(book, series.Clock(1000), 5, 1, met)
    for clip in (CLIP, replace(CLIP, name="fewer steps", steps=1)):
        playing.play(clip, crew, 10)
        assert list(book.answers[clip]) == ["ours"]
    assert [(name, where) for name, where, _ in book.failures] == [("ours, compiled", "clip"), ("ours, compiled", "fewer steps")]
    playing.play(replace(CLIP, name="time enough"), crew, 1000)
    playing.play(replace(CLIP, name="compiled"), crew, 10)
    assert [sorted(answers) for answers in book.answers.values()][2:] == [["ours", "ours, compiled"]] * 2


def test_nobody_is_missing_from_the_book(tmp_path):
    book, runs = played(tmp_path, [Process("ADE", 3), Process("ours"), Process("diffusers", 0)])
    assert runs == {"ADE": 2, "ours": 5}
    assert [(name, why) for name, _, why in book.failures] == [("diffusers", "ended with 1: out of memory"), ("ADE", "ended with 1: out of memory")]
    book, runs = played(tmp_path, [Process("ADE"), Process("ours")], budget=-1)
    assert runs == {} and [(name, why) for name, _, why in book.failures] == [(name, "left out: the time is over") for name in ("ADE", "ours")]


def test_who_ends_while_another_one_runs_is_reported_and_the_others_go_on(tmp_path):
    killed, crew = Process("diffusers"), [Process("ADE"), Process("ours")]

    class Killer(Process):
        def receive(self, seconds: float) -> dict:
            killed.alive = False
            return super().receive(seconds)

    for order in ([killed, *crew, Killer("ours, stock flags")], [Killer("ours, stock flags"), killed, *crew]):
        killed.alive = True
        book, runs = played(tmp_path, order, warmup=2)
        assert runs == {"ADE": 5, "ours": 5, "ours, stock flags": 5} and book.failures == [("diffusers", "clip", "its process ended")]


def verdicts(tmp_path, found: dict[str, torch.Tensor | None], dtype: str = "float16") -> dict[str, bool]:
    """Whether each passed, by contestant and text; None: did not start."""
    book = series.Book(tmp_path / "raw.jsonl", lambda text: None)
    crew = {name: Process(name, latents=latents) for name, latents in found.items() if latents is not None}

    def reference(row, common):
        worker = Process("ADE" if row.pack else "diffusers", latents=EXACT)
        worker.row = row
        worker.wait_ready = worker.stop = lambda *_: None
        return worker

    asked = checks.Gate(crew, {"device": "cpu", "dtype": dtype, "out": str(tmp_path)}, list(found), False, book, 1, reference)
    return {f"{verdict.names[0]}: {verdict.text}": verdict.passed for verdict in asked.run()}


EXACT = torch.randn(8, 4, 8, 8, generator=torch.Generator().manual_seed(0))
NEAR, FAR = EXACT + 1e-3, EXACT + 2e-3


def test_the_gate_has_a_reference_for_whoever_is_of_its_kind(tmp_path):
    found = verdicts(tmp_path, {"ADE, stock flags": NEAR, "ours, stock flags": NEAR})
    assert all(found.values()) and any("from float32, ADE, stock flags" in text for text in found)
    found = verdicts(tmp_path, {"ADE, stock flags": NEAR, "ours, stock flags": FAR})
    assert [text.partition(":")[0] for text, passed in found.items() if not passed] == ["ours, stock flags"]


def test_a_peer_that_gave_nothing_fails_the_gate_and_one_that_was_not_asked_for_does_not(tmp_path):
    found = verdicts(tmp_path, {"ADE": None, "ours": EXACT})
    assert [text for text, passed in found.items() if not passed] == ["ours: ADE, which it is compared with, gave no latents"]
    found = verdicts(tmp_path, {"ours": EXACT})
    assert all(found.values()) and "ours: compared with nobody: ADE was not asked for" in found


def test_float32_needs_no_reference(tmp_path):
    found = verdicts(tmp_path, {"ADE": EXACT, "ours": EXACT, "diffusers": EXACT}, "float32")
    assert all(found.values()) and sum("at most 1e-04" in text for text in found) == 2
    found = verdicts(tmp_path, {"ADE": EXACT, "ours": NEAR}, "float32")
    assert not all(found.values())


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
