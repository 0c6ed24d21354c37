"""A Markdown file of sections, of which one run replaces its own."""

import re
from pathlib import Path

TITLE = "# Benchmarks"
ABOUT = "Each section is written by the command that it names; running one leaves the others. Ratios are of one table's own rows."


def replaced(text: str, title: str, body: str) -> str:
    """text with the section `## title` replaced, or added at the end."""
    parts = re.split(r"(?m)^(?=## )", text or f"{TITLE}\n\n{ABOUT}\n\n")
    section = f"## {title}\n\n{body.strip()}\n"
    found = [number for number, part in enumerate(parts) if part.partition("\n")[0].strip() == f"## {title}"]
    if found:
        parts[found[0]] = section
    else:
        parts.append(section)
    return "\n\n".join(part.strip() for part in parts) + "\n"


def check(path: Path, title: str, command: str, replace: bool) -> None:
    """Ends the program, before anything is measured, where the section is another command's; replace says that it may go."""
    text = path.read_text(encoding="utf-8") if path.is_file() else ""
    body = next((part for part in re.split(r"(?m)^## ", text) if part.partition("\n")[0].strip() == title), "")
    if body and f"`{command}`" not in body and not replace:
        raise SystemExit(
            f"The section {title} of {path} has the figures of another command, which would be lost: give --section another name, or --replace."
        )


def write(path: Path, title: str, body: str) -> None:
    """Replaces the section in a file, which is made when it is not there."""
    path.write_text(replaced(path.read_text(encoding="utf-8") if path.is_file() else "", title, body), encoding="utf-8")
