"""The machine and the versions, read and never set."""

import importlib.metadata
import os
import platform
import subprocess
from pathlib import Path

QUERY = "name,driver_version,memory.total,clocks.sm,clocks.mem,clocks.max.sm,power.limit,temperature.gpu"
STATUS = Path("/proc/self/status")
PACKAGES = ("torch", "triton", "diffusers", "transformers", "av", "numpy", "safetensors")


def _output(*command: str) -> str:
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=20, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return ""


def gpu() -> str:
    """nvidia-smi's line: name, driver, memory and clocks."""
    lines = _output("nvidia-smi", f"--query-gpu={QUERY}", "--format=csv,noheader").splitlines()
    return lines[0] if lines else ""


def forget_peak() -> None:
    """From now on `peak` counts anew; nothing happens where the system has no /proc."""
    if STATUS.is_file():
        STATUS.with_name("clear_refs").write_text("5")


def peak() -> float:
    """MiB of this process in memory at most since `forget_peak`; 0 where the system has no /proc."""
    lines = STATUS.read_text().splitlines() if STATUS.is_file() else []
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM")), 0.0)


def commit(folder: Path) -> str:
    """A checkout's commit; a folder without history may say it in a file COMMIT."""
    note = folder / "COMMIT"
    return note.read_text().strip() if note.is_file() else _output("git", "-C", str(folder), "describe", "--always", "--dirty")


def versions() -> str:
    """Of the packages that matter."""
    found = []
    for name in PACKAGES:
        try:
            found.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            continue
    return ", ".join(found)


def processor() -> str:
    """Its name and the cores that this process may use."""
    cpuinfo = Path("/proc/cpuinfo")
    names = [line.partition(":")[2].strip() for line in cpuinfo.read_text().splitlines() if line.startswith("model name")] if cpuinfo.is_file() else []
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{names[0] if names else platform.processor() or platform.machine()}, {cores} cores, Python {platform.python_version()}"
