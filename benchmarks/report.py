"""Tables of a run: the section of RESULTS.md."""

import argparse
import importlib.util
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import contestants
import facts
import flops
import gate
import pack
import sections
from contestants import Contestant
from scenarios import Scenario
from series import Book
from stats import ratio, spread

PARTS = ("denoise", "vae", "copy", "encode", "total")
HEADINGS = ("denoise", "VAE", "copy-out", "encode", "end to end")
FEW_RUNS = 6
"""Below so many runs the bootstrap's interval is the range of what was found."""


@dataclass
class Run:
    """What is true of the whole run. members: row, what it said of itself and the seconds to load, by name."""

    given: argparse.Namespace
    comfyui: Path
    members: dict[str, tuple[Contestant, dict, float]]
    commit: str = field(default_factory=lambda: facts.commit(pack.ROOT))  # before the report itself changes the checkout
    verdicts: list[gate.Verdict] = field(default_factory=list)
    ceiling: float = 0.0


def command() -> str:
    """As it was typed, without the machine's folders, and without what says only where it is written."""
    words = [Path(word).name if index == 0 else "FOLDER" if "/" in word else word for index, word in enumerate(sys.argv) if word != "--replace"]
    return "python benchmarks/" + " ".join(f'"{word}"' if " " in word else word for word in words)


def facts_of(run: Run) -> list[str]:
    """Machine, versions and command as a Markdown list."""
    ade = facts.commit(run.given.ade) if run.given.ade else "not there"
    comfyui = next((about["comfyui"] for _, about, _ in run.members.values() if "comfyui" in about), "not there")
    allocators = ", ".join(sorted({f"{name}: {about['allocator']}" for name, (_, about, _) in run.members.items() if about.get("allocator")}))
    lines = [f"Command: `{command()}`; this pack at {run.commit or 'no commit that is known'}", f"Processor: {facts.processor()}"]
    lines += [f"GPU ({facts.QUERY}): {facts.gpu()}", f"Allocators: {allocators}"] if run.given.device == "cuda" else []
    lines += [f"ComfyUI {comfyui} ({facts.commit(run.comfyui) or 'no history'}), ComfyUI-AnimateDiff-Evolved {ade}, {facts.versions()}"]
    lines += [
        f"Weights: {run.given.size} size, {run.given.dtype}, random; one set of noise, sigmas and embeddings for all. Times are milliseconds: median (p10-p90)."
    ]
    return [f"* {line}" for line in lines]


def _values(answers: list[dict], pick: Callable[[dict], float]) -> str:
    found = spread([pick(answer) for answer in answers])
    return f"{found.median:.1f} ({found.p10:.1f}-{found.p90:.1f})"


def step_ms(scenario: Scenario) -> Callable[[dict], float]:
    """Wall time of the sampling, shared among its steps."""
    return lambda answer: answer["times"]["denoise"] / scenario.steps


def _row(name: str, answers: list[dict], scenario: Scenario, run: Run, work: float) -> str:
    calls, frames = gate.counted(answers[0]["evaluations"])
    median = spread([answer["times"]["denoise"] for answer in answers]).median
    rate = work / (median / 1000)
    share = f" ({rate / run.ceiling:.0%})" if run.ceiling else ""
    cells = [name, f"{calls} / {frames}", _values(answers, step_ms(scenario))]
    cells += [
        _values(answers, lambda answer: sum(answer["evaluation"]) / scenario.steps),
        _values(answers, lambda answer: sum(answer["launch"]) / scenario.steps),
    ]
    cells += [f"{rate:.2f}{share}"]
    cells += [_values(answers, lambda answer, part=part: answer["times"][part]) for part in (PARTS if scenario.tail else PARTS[:1])]
    peaks = [answer["memory"] for answer in answers]
    cells += [f"{spread([answer['times']['bytes'] / 1024 for answer in answers]).median:.0f}"] if scenario.tail else []
    cells += [" / ".join(f"{max(peak[key] for peak in peaks):.0f}" for key in ("allocated", "reserved", "process") if key in peaks[0]), str(len(answers))]
    return f"| {' | '.join(cells)} |"


def _ratios(scenario: Scenario, answers: dict[str, list[dict]], run: Run) -> list[str]:
    lines, failed = [], {verdict.names[0] for verdict in run.verdicts if not verdict.passed}
    for name, found in answers.items():
        for baseline, others in answers.items():
            label = contestants.label(run.members[name][0], run.members[baseline][0])
            if not label:
                continue
            cells = [name, baseline]
            for part in ("denoise", "total") if scenario.tail else ("denoise",):
                middle, low, high = ratio([answer["times"][part] for answer in others], [answer["times"][part] for answer in found])
                cells.append(f"{middle:.2f} ({low:.2f}-{high:.2f})")
            work = {gate.counted(answer["evaluations"]) for answer in found + others}
            label = label if len(work) == 1 else "NOT the same UNet calls"
            lines.append(f"| {' | '.join([*cells, 'nothing, it FAILED the gate' if name in failed else label])} |")
    columns = ["contestant", "against", "denoise", *(["end to end"] if scenario.tail else []), "the sampling may be called"]
    head = [f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
    few = min(map(len, answers.values()), default=0) < FEW_RUNS
    text = f"Ratio of medians, above 1 is faster ({'range: the runs are too few for an interval' if few else 'bootstrap 95 % interval'}):"
    return ["", text, "", *head, *lines] if lines else []


def table(scenario: Scenario, answers: dict[str, list[dict]], run: Run) -> list[str]:
    """One scenario."""
    work = flops.tflop(scenario, run.given.size)
    columns = ["contestant", "UNet calls / cond-frames", "step", "UNet in a step", "launch in a step", "TFLOP/s (of matrix product)"]
    columns += [*HEADINGS, "mp4, KiB"] if scenario.tail else HEADINGS[:1]
    columns += ["peak MiB of torch's allocator, allocated / reserved" if run.given.device == "cuda" else "peak MiB of the process", "runs"]
    lines = [f"### {scenario.name[0].upper()}{scenario.name[1:]}", "", f"{work:.2f} TFLOP in the UNet and its motion module.", ""]
    lines += [f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
    return [*lines, *(_row(name, found, scenario, run, work) for name, found in answers.items()), *_ratios(scenario, answers, run), ""]


def _gate(run: Run) -> list[str]:
    lines = [f"| {verdict.names[0]} | {'passed' if verdict.passed else '**FAILED**'} | {verdict.text} |" for verdict in run.verdicts]
    return ["### Correctness gate", "", "| contestant | | |", "|---|---|---|", *lines, ""] if lines else []


def _cold(run: Run, book: Book) -> list[str]:
    how = "all at once" if run.given.together else "one after another"
    lines = []
    for name, (row, about, seconds) in run.members.items():
        warm = [answer["times"]["denoise"] / 1000 for answer in book.warm.get(name, [])[:1]]
        what = f"{about['unet']}, VAE {about['vae']}, {about.get('patcher', 'diffusers')}, {about['tail']}".replace("torch.", "")
        lines.append(
            f"| {name} | {' '.join(row.flags)} | {what} | {seconds:.1f} | {warm[0]:.1f} |"
            if warm
            else f"| {name} | {' '.join(row.flags)} | {what} | {seconds:.1f} | |"
        )
    head = ["| contestant | flags | in | start to loaded, s | first clip (the gate's, no decoding), s |", "|---|---|---|---|---|"]
    return ["### Contestants and cold start", "", f"Processes were started {how}; compilation is in the first clip.", "", *head, *lines, ""]


def _failures(book: Book) -> list[str]:
    lines = [f"* {name}, {where}: {why}" for name, where, why in book.failures]
    return ["### Not measured", "", *lines, ""] if lines else []


def write(run: Run, book: Book) -> Path:
    """The section and its plot, where matplotlib is; returns the plot's path."""
    lines = [*facts_of(run), "", *_cold(run, book), *_gate(run)]
    lines += [f"Matrix products of the run's dtype: {run.ceiling:.2f} TFLOP/s.", ""] if run.ceiling else []
    for scenario, answers in book.answers.items():
        lines += table(scenario, answers, run)
    lines += _failures(book)
    path = run.given.results.with_name(f"results-{run.given.section.lower().replace(', ', '-').replace(' ', '-')}.png")
    if book.answers and importlib.util.find_spec("matplotlib"):
        importlib.import_module("plot").draw(book.answers, path)
        lines += [f"![milliseconds of each contestant]({path.name})"]
    sections.write(run.given.results, run.given.section, "\n".join(lines))
    return path


def short(scenario: Scenario, book: Book) -> str:
    """One line for each contestant."""
    lines = []
    for name, answers in book.answers.get(scenario, {}).items():
        total = f", end to end {_values(answers, lambda answer: answer['times']['total'])}" if scenario.tail else ""
        lines.append(
            f"  {name}: step {_values(answers, step_ms(scenario))} ms{total}, {len(answers)} runs, UNet calls / cond-frames {gate.counted(answers[0]['evaluations'])}"
        )
    return "\n".join(lines) or "  nobody finished a timed run"
