"""The benchmarks' runs and their gate, with contestants that answer at once: nobody is lost, and nobody passes for want of a peer."""

import sys
from dataclasses import replace
from pathlib import Path

import torch
from safetensors.torch import save_file

sys.path.append(str(Path(__file__).resolve().parents[1] / "benchmarks"))

import checks
import contestants
import fleet
import scenarios
import series


class Process:
    """A contestant that answers at once, until it has said so often; then it has ended."""

    def __init__(self, name: str, answers: int = 10**6, latents: torch.Tensor | None = None):
        self.row, self.left, self.latents, self.process, self.alive, self.about = contestants.ROWS[name], answers, latents, self, True, {}
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


def test_who_ends_while_another_ones_clip_runs_fails_the_gate_and_nothing_else(tmp_path):
    killed = Process("diffusers", latents=EXACT)

    class Killer(Process):
        def receive(self, seconds: float) -> dict:
            killed.alive = False
            return super().receive(seconds)

    book = series.Book(tmp_path / "raw.jsonl", lambda text: None)
    crew = {process.row.name: process for process in (Killer("ADE", latents=EXACT), killed, Process("ours", latents=EXACT))}
    found = checks.Gate(crew, {"device": "cpu", "dtype": "float32", "out": str(tmp_path)}, list(crew), False, book, 1).run()
    assert [(name, where) for name, where, _ in book.failures] == [("diffusers", "gate")] and {verdict.names[0] for verdict in found} == {"ADE", "ours"}


def test_float32_needs_no_reference(tmp_path):
    found = verdicts(tmp_path, {"ADE": EXACT, "ours": EXACT, "diffusers": EXACT}, "float32")
    assert all(found.values()) and sum("at most 1e-04" in text for text in found) == 2
    found = verdicts(tmp_path, {"ADE": EXACT, "ours": NEAR}, "float32")
    assert not all(found.values())
