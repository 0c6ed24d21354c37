"""What the device can do at SD1.5's shapes, piece by piece: python benchmarks/checklist.py --out FOLDER

Ceilings of matrix products and convolutions, attention kernels, the VAE by batch, fp8, CUDA graphs by allocator, encoder threads and, with --weights,
torch.compile of the whole UNet. Each item is short and an item that fails says why. Dynamic VRAM's cost is not here: it is "ours" beside
"ours, stock flags" in run.py's host scenario. Writes the section Checklist of benchmarks/RESULTS.md. With --device cpu everything is tiny and only shows that it runs.
"""

import argparse
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path

import device_items
import facts
import pack
import process_items
import sections
import torch
from items import Bench, Table

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
    return parser.parse_args()


def run(title: str, item: Callable[[Bench], Table], bench: Bench) -> list[str]:
    """The item's Markdown."""
    started = time.monotonic()
    try:
        lines = item(bench).markdown() if bench.left() > 5 else ["Left out: the time is over."]
    except (RuntimeError, ValueError, AttributeError, ImportError, OSError) as error:
        traceback.print_exc()
        lines = [f"Failed: {type(error).__name__}: {next(iter(str(error).splitlines()), '')}"]
    if bench.cuda:
        torch.cuda.empty_cache()
    return [f"### {title}", "", *lines, "", f"({time.monotonic() - started:.0f} s)", ""]


def main() -> None:
    """The command line."""
    given = parse()
    given.out.mkdir(parents=True, exist_ok=True)
    pack.load()
    bench = Bench(given.device == "cuda", time.monotonic() + given.budget_seconds, given.out, given.weights, pack.find_comfyui(given.comfyui))
    body = [f"* GPU ({facts.QUERY}): {facts.gpu() or 'none'}", f"* Processor: {facts.processor()}", f"* {facts.versions()}", "* Medians.", ""]
    with torch.no_grad():
        for number, (title, item) in enumerate(ITEMS, 1):
            if given.only and number not in given.only:
                continue
            lines = run(title, item, bench)
            sys.stdout.write("\n".join(lines) + "\n")
            sys.stdout.flush()
            body += lines
            sections.write(given.results, "Checklist", "\n".join(body))


if __name__ == "__main__":
    main()
