"""What the device can do at SD1.5's shapes, piece by piece: python benchmarks/checklist.py --out FOLDER

Ceilings of matrix products and convolutions, attention kernels, the VAE by batch, fp8, CUDA graphs by allocator, encoder threads and, with --weights,
torch.compile of the whole UNet. Each item is a process of its own: one that fails or takes too long keeps the rows that it had, and the others are
measured. Dynamic VRAM's cost is not here: it is "ours" beside "ours, stock flags" in run.py's host scenario. Writes a section for each item into
benchmarks/RESULTS.md. With --device cpu everything is tiny and only shows that it runs.
"""

import argparse
import functools
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import device_items
import facts
import fleet
import pack
import process_items
import sections
import torch
from items import Bench, Table, markdown

ITEMS: tuple[tuple[str, Callable[[Bench], Table]], ...] = (
    ("Matrix products, TFLOP/s", device_items.products),
    ("Convolutions 3x3, TFLOP/s", device_items.convolutions),
    ("Spatial attention, ms", device_items.spatial_attention),
    ("Temporal attention, ms", device_items.temporal_attention),
    ("VAE decoder, ms a frame", device_items.vae),
    ("fp8 matrix products, TFLOP/s", device_items.fp8),
    ("CUDA graph of a small network by allocator", process_items.graphs),
    ("libx264, ms a frame", process_items.encoding),
    ("torch.compile of the UNet with motion, s and ms", process_items.compiling),
)
FEWEST_SECONDS = 5
TOLD = "row: "
"""Before a row that an item's process tells."""
START_SECONDS = 60
"""What an item may take to load torch, beyond its seconds."""


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="for the logs")
    parser.add_argument("--weights", type=Path, help="a folder of benchmarks/weights.py, for torch.compile")
    parser.add_argument("--comfyui", type=Path)
    parser.add_argument("--results", type=Path, default=Path(__file__).with_name("RESULTS.md"))
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--only", type=int, action="append", default=[], help=f"a number from 1 to {len(ITEMS)}; may be given again")
    parser.add_argument("--budget-seconds", type=float, default=600)
    parser.add_argument("--item-seconds", type=float, default=180, help="for one item")
    parser.add_argument("--inside", type=int, help=argparse.SUPPRESS)
    return parser.parse_args()


def tell(row: list[str]) -> None:
    """A table's columns, or a row, to the process that asked."""
    sys.stdout.write(TOLD + json.dumps(row) + "\n")
    sys.stdout.flush()


def inside(given: argparse.Namespace) -> None:
    """One item, in its own process."""
    pack.load()
    ends = time.monotonic() + given.item_seconds
    with torch.no_grad():
        ITEMS[given.inside - 1][1](Bench(given.device == "cuda", ends, given.out, given.weights, pack.find_comfyui(given.comfyui), tell))


def _told(process: subprocess.Popen, write: Callable[[list[str]], None]) -> list[list[str]]:
    rows: list[list[str]] = []
    for line in process.stdout:
        if line.startswith(TOLD):  # what else is printed is somebody's chatter
            rows.append(json.loads(line.removeprefix(TOLD)))
            write(markdown(rows[0], rows[1:]))
    return rows


def run(number: int, seconds: float, arguments: list[str], out: Path, write: Callable[[list[str]], None]) -> list[str]:
    """The item's Markdown; write is given it after every row."""
    started, log = time.monotonic(), out / f"item-{number}.log"
    with log.open("w") as errors:
        asked = [sys.executable, __file__, *arguments, "--inside", str(number), "--item-seconds", str(seconds)]
        process = subprocess.Popen(asked, stdout=subprocess.PIPE, stderr=errors, text=True, env=os.environ | {"PYTHONUNBUFFERED": "1"})
        timer = threading.Timer(seconds + START_SECONDS, process.kill)
        timer.daemon = True
        timer.start()
        try:
            rows = _told(process, write)
            process.wait()
        finally:
            process.kill()
    late = timer.finished.is_set()
    timer.cancel()
    lines = markdown(rows[0], rows[1:]) if rows else []
    if process.returncode:
        lines += ["", f"Ended after {seconds + START_SECONDS:.0f} s." if late else f"Failed: {fleet.last_line(log)[:200]}"]
    return [*lines, "", f"({time.monotonic() - started:.0f} s)", ""]


def put(results: Path, section: str, head: list[str], lines: list[str]) -> None:
    """What there is of an item, into its section."""
    sections.write(results, section, "\n".join([*head, *lines]))


def main() -> None:
    """The command line."""
    given = parse()
    given.out.mkdir(parents=True, exist_ok=True)
    if given.inside:
        inside(given)
        return
    ends = time.monotonic() + given.budget_seconds
    head = [f"* GPU ({facts.QUERY}): {facts.gpu() or 'none'}; processor: {facts.processor()}; {facts.versions()}", "* Medians.", ""]
    for number, (title, _) in enumerate(ITEMS, 1):
        if given.only and number not in given.only:
            continue
        section = f"Checklist: {title}"
        write = functools.partial(put, given.results, section, head)
        seconds = min(given.item_seconds, ends - time.monotonic())
        if seconds < FEWEST_SECONDS:
            sys.stdout.write(f"{section}: left out, the time is over\n")
            continue
        lines = run(number, seconds, sys.argv[1:], given.out, write)
        write(lines)
        sys.stdout.write("\n".join([section, "", *lines]) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
