"""This pack, ComfyUI-AnimateDiff-Evolved and diffusers on the same random weights, interleaved: python benchmarks/run.py --weights FOLDER --ade FOLDER

Needs a ComfyUI (--comfyui, COMFYUI_PATH or ~/comfy/ComfyUI) and diffusers; without --ade its rows are left out. On a GPU: SD1.5's full size in
float16, clips of --scenario headline with decoding and mp4. With --device cpu: float32 and single UNet calls. First the correctness gate: latents
that differ by more than rounding, UNet calls that are not the same work, or a contestant that does not run, end it with exit code 1. Writes its section
of benchmarks/RESULTS.md, a plot beside it (where matplotlib is installed), and every single run to OUT/raw.jsonl.
"""

import argparse
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import checks
import contestants
import pack
import report
import scenarios
import sections
from fleet import Failed, Worker, stop
from series import Book, Clock, Series
from stats import interleaved

START_SECONDS = 240
WRITE_SECONDS = 20


def say(text: str) -> None:
    """To the person who waits."""
    sys.stdout.write(f"[{time.strftime('%H:%M:%S')}] {text}\n")
    sys.stdout.flush()


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", type=Path, required=True, help="folder for the random weights; written when it is empty")
    parser.add_argument("--ade", type=Path, help="a checkout of ComfyUI-AnimateDiff-Evolved")
    parser.add_argument("--comfyui", type=Path)
    parser.add_argument("--out", type=Path, help="folder for raw.jsonl and the logs; a new one in the temporary folder")
    parser.add_argument("--results", type=Path, default=Path(__file__).with_name("RESULTS.md"))
    parser.add_argument("--section", help="the section of RESULTS.md to write: GPU or CPU without it")
    parser.add_argument("--replace", action="store_true", help="replace the section although another command wrote it")
    parser.add_argument("--device", choices=("cuda", "cpu"))
    parser.add_argument("--dtype", choices=("float16", "bfloat16", "float32"))
    parser.add_argument("--size", choices=("full", "narrow"), default="full", help="narrow: a small UNet, for a look at the program; without ADE")
    parser.add_argument("--only", action="append", default=[], metavar="NAME", help="a contestant; may be given again")
    parser.add_argument("--scenario", action="append", default=[], metavar="SET", help=f"{', '.join(scenarios.SETS)} or frames,steps,guidance[,side]")
    parser.add_argument("--sweep", action="append", default=[], choices=scenarios.SWEEPS)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--warmup", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="3 rounds, 1 warm-up")
    parser.add_argument("--budget-seconds", type=float, default=7200, help="rounds are left out so that everything ends within this time")
    parser.add_argument("--together", action="store_true", help="start all processes at once: saves minutes, and the cold start is none")
    parser.add_argument("--measure-anyway", action="store_true", help="time what failed the gate too; the tables say so and the exit code is 1 all the same")
    given = parser.parse_args()
    import torch

    given.device = given.device or ("cuda" if torch.cuda.is_available() else "cpu")
    given.dtype = given.dtype or ("float16" if given.device == "cuda" else "float32")
    given.section = given.section or {"cuda": "GPU", "cpu": "CPU"}[given.device]
    given.rounds, given.warmup = (3, 1) if given.quick else (max(given.rounds, 1), max(given.warmup, 1))
    given.out = given.out or Path(tempfile.mkdtemp(prefix="benchmark-"))
    return given


def rows(given: argparse.Namespace) -> list[contestants.Contestant]:
    """Who can run here."""
    found = []
    for row in contestants.by_name(given.only):
        elsewhere = row.on not in ("", given.device) and not given.only
        if (row.pack == "ade" and (not given.ade or given.size == "narrow")) or elsewhere:
            say(f"  {row.name}: left out")
        else:
            found.append(row)
    return found


def start(chosen: list[contestants.Contestant], common: dict, book: Book, together: bool) -> dict[str, Worker]:
    """The processes whose models are loaded."""
    fleet: dict[str, Worker] = {}
    workers: list[Worker] = []
    for row in chosen:
        workers.append(Worker(row, common))
        if not together:
            await_worker(workers[-1], fleet, book)
    for worker in workers if together else []:
        await_worker(worker, fleet, book)
    return fleet


def await_worker(worker: Worker, fleet: dict[str, Worker], book: Book) -> None:
    """Joins the fleet, or is reported."""
    try:
        worker.wait_ready(START_SECONDS)
    except Failed as failure:
        book.fail(worker.row.name, "start", str(failure))
        return
    fleet[worker.row.name] = worker
    book.note("ready", contestant=worker.row.name, about=worker.about, seconds=worker.open_s)
    say(f"  {worker.row.name}: loaded after {worker.open_s:.1f} s, {worker.about}")


def measure(given: argparse.Namespace, fleet: dict[str, Worker], book: Book, clock: Clock, run: report.Run) -> None:
    """Every scenario, and the report after each."""
    wanted = scenarios.chosen(given.scenario + [f"sweep-{name}" for name in given.sweep], given.device)
    series = Series(book, clock, given.rounds, given.warmup, {(name, scenarios.GATE[given.device].shape) for name in fleet})
    for number, scenario in enumerate(wanted):
        seconds = (clock.left() - WRITE_SECONDS) * scenario.share / sum(other.share for other in wanted[number:])
        if seconds <= 0:
            book.fail("everybody", scenario.name, "left out: the time is over")
            continue
        for name in run.members:
            if name not in fleet:
                book.fail(name, scenario.name, "its process had ended before")
        say(f"{scenario.name}: {' '.join(interleaved(list(fleet), 1))}, at most {seconds:.0f} s")
        series.play(scenario, fleet, seconds)
        report.write(run, book)
        say(report.short(scenario, book))


def main() -> int:
    """The exit code: 1 when the gate failed, or somebody did not get to it or through it."""
    given = parse()
    sections.check(given.results, given.section, report.command(), given.replace)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that what was found is written
    clock = Clock(given.budget_seconds)
    given.out.mkdir(parents=True, exist_ok=True)
    comfyui = pack.find_comfyui(given.comfyui)
    if comfyui is None:
        raise SystemExit("There is no ComfyUI: set --comfyui or COMFYUI_PATH to a checkout, or put one at ~/comfy/ComfyUI.")
    sizes = ("--weights", str(given.weights), "--size", given.size, "--dtype", given.dtype, "--device", given.device)
    subprocess.run([sys.executable, str(Path(__file__).with_name("weights.py")), *sizes], check=True, timeout=600)
    common = {"weights": given.weights, "comfyui": comfyui, "ade": given.ade or "", "out": given.out}
    common = {key: str(Path(value).resolve()) if value else "" for key, value in common.items()}
    common |= {"size": given.size, "dtype": given.dtype, "device": given.device}
    book = Book(given.out / "raw.jsonl", say)
    book.note("start", command=report.command(), at=time.strftime("%Y-%m-%d %H:%M:%S"))
    chosen = rows(given)
    fleet = start(chosen, common, book, given.together)
    run = report.Run(given, comfyui, {name: (worker.row, worker.about, worker.open_s) for name, worker in fleet.items()})
    book.note("facts", lines=report.facts_of(run))
    try:
        asked = [row.name for row in chosen]
        run.verdicts = checks.Gate(fleet, common, asked, given.together, book, min(300, clock.left() / 3)).run()
        failed = [verdict for verdict in run.verdicts if not verdict.passed]
        report.write(run, book)
        absent = [name for name, where, _ in book.failures if where in ("start", "gate")]
        if (failed or absent) and not given.measure_anyway:
            say(f"The gate failed: {'; '.join([f'{verdict.names[0]}: {verdict.text}' for verdict in failed] + [f'{name}: see above' for name in absent])}")
            return 1
        run.ceiling = checks.ceiling(given.device, fleet, book)
        measure(given, fleet, book, clock, run)
    finally:
        say(f"{given.results}, {report.write(run, book)}, {given.out}")
        stop(list(fleet.values()))
    return 1 if failed or absent else 0


if __name__ == "__main__":
    sys.exit(main())
