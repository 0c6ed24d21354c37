"""A Markdown file of sections, of which one run replaces its own."""

import re
from pathlib import Path

TITLE = "# Benchmarks"
ABOUT = "Each section is written by the command that it names; running one leaves the others. Ratios are of one table's own rows."


def _parts(text: str) -> dict[str, str]:
    """What stands before the first section, under "", and every section under its title's line."""
    parts = re.split(r"(?m)^(?=## )", text)
    return {"" if number == 0 else part.partition("\n")[0].strip(): part.strip() for number, part in enumerate(parts)}


def replaced(text: str, title: str, body: str) -> str:
    """text with the section `## title` replaced, or added at the end."""
    heading = f"## {title}"
    return "\n\n".join((_parts(text or f"{TITLE}\n\n{ABOUT}") | {heading: f"{heading}\n\n{body.strip()}"}).values()) + "\n"


def check(path: Path, title: str, command: str, replace: bool) -> None:
    """Ends the program, before anything is measured, where the section is another command's; replace says that it may go."""
    body = _parts(_read(path)).get(f"## {title}")
    if body and f"`{command}`" not in body and not replace:
        raise SystemExit(
            f"The section {title} of {path} has the figures of another command, which would be lost: give --section another name, or --replace."
        )


def write(path: Path, title: str, body: str) -> None:
    """Replaces the section in a file, which is made when it is not there."""
    path.write_text(replaced(_read(path), title, body), encoding="utf-8")


def _read(path: Path) -> str:
    return path.read_text(encoding="utf-8") if path.is_file() else ""
