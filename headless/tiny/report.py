"""What a training run came to: scores, losses, pictures and the weights' hashes, as Markdown beside the weights."""

import csv
import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from pathlib import Path

import torch
from PIL import Image, ImageDraw
from torch import Tensor

from ..pipeline import TextToVideo
from . import evaluate
from .export import sha256
from .loop import whole
from .world import FRAMES, SIDE, TEST_PAIRS, Scene

Pairs = Sequence[tuple[Scene, int]]

SHOWN = 5
"""Frames of each clip in the contact sheet."""
PICTURES = 16
"""Clips in it."""
STRIDE = 13
"""From one of them to the next in the list of pairs: all shapes, colours and ways are among them."""
MARGIN, TEXT_HEIGHT = 4, 16


def contact_sheet(clips: Iterable[tuple[str, Tensor]], columns: int = 2) -> Image.Image:
    """Some frames of every clip, (f, h, w, 3), side by side under its prompt."""
    clips = list(clips)
    numbers = torch.linspace(0, len(clips[0][1]) - 1, SHOWN).round().long()
    width, height = SHOWN * (SIDE + MARGIN) + 3 * MARGIN, SIDE + TEXT_HEIGHT + 3 * MARGIN
    sheet = Image.new("RGB", (columns * width, -(-len(clips) // columns) * height), "white")
    draw = ImageDraw.Draw(sheet)
    for number, (prompt, clip) in enumerate(clips):
        left, top = number % columns * width + 2 * MARGIN, number // columns * height + MARGIN
        draw.text((left, top), prompt, fill="black")
        for column, frame in enumerate(clip[numbers]):
            picture = Image.fromarray((frame * 255).round().byte().numpy())
            sheet.paste(picture, (left + column * (SIDE + MARGIN), top + TEXT_HEIGHT))
    return sheet


def losses(log: Path, points: int = 8) -> str:
    """The losses of a stage at some steps, each a mean over the eighth of the run before it."""
    with log.open(encoding="ascii") as file:
        rows = [(int(step), float(value)) for step, value in csv.reader(file)]
    size = max(1, -(-len(rows) // points))
    parts = [rows[start : start + size] for start in range(0, len(rows), size)]
    return ", ".join(f"{part[-1][0]}: {sum(value for _, value in part) / len(part):.4f}" for part in parts)


def write(folder: Path, seed: int, recipe: object, rows: Iterable[str] = tuple(evaluate.ROWS), pairs: Pairs = TEST_PAIRS, device: str = "cpu") -> Path:
    """Scores the weights in folder on held-out pairs and writes folder/report.md and folder/contact_sheet.png.

    Rows that were scored on the same weights and pairs before are read from folder/scores.
    """
    stack = evaluate.stacks(folder, device)
    hashes = [f"- `{path.relative_to(folder).as_posix()}` {sha256(path)}" for path in sorted(folder.rglob("*.safetensors"))]
    table = [evaluate.HEAD, *(_line(folder / "scores", name, stack, pairs, hashes) for name in rows)]
    shown = evaluate.clips(stack(evaluate.Row()), [pairs[STRIDE * i % len(pairs)] for i in range(min(PICTURES, len(pairs)))], evaluate.Row.steps)
    contact_sheet((scene.prompt, clip) for scene, clip in shown).save(folder / "contact_sheet.png")
    stages = [f"- {log.stem}: {losses(log)}" for log in sorted(folder.glob("*.csv"))]
    settings = [f"- {name}: {value}" for name, value in asdict(recipe).items()]
    text = [
        "# The tiny model", "", f"Seed {seed}, torch {torch.__version__}.", "", "![Held-out prompts](contact_sheet.png)",
        "", f"## {len(pairs)} held-out prompts and seeds, guidance 1, {FRAMES} frames", "", *table, "", "## Losses", "", *stages,
        "", "## Recipe", "", *settings, "", "## SHA-256", "", *hashes, "",
    ]  # fmt: skip
    path = folder / "report.md"
    path.write_text("\n".join(text), encoding="utf-8")
    return path


def _line(folder: Path, name: str, stack: Callable[[evaluate.Row], TextToVideo], pairs: Pairs, hashes: Sequence[str]) -> str:
    """The table's line of a row, which takes minutes without a GPU."""
    row = evaluate.ROWS[name]
    path = folder / f"{hashlib.sha256(repr((name, row, pairs, hashes)).encode()).hexdigest()}.md"
    if not path.is_file():
        text = evaluate.line(name, evaluate.score(evaluate.clips(stack(row), pairs, row.steps)))
        folder.mkdir(exist_ok=True)
        whole(path, lambda partial: partial.write_text(text, encoding="utf-8"))
    return path.read_text(encoding="utf-8")
