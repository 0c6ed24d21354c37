"""The machine and the versions, read and never set."""

import importlib.metadata
import os
import platform
import subprocess
from pathlib import Path

QUERY = "name,driver_version,memory.total,clocks.sm,clocks.mem,clocks.max.sm,power.limit,temperature.gpu"
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


def memory_of(pid: int) -> float | None:
    """MiB that a process has on the GPU, None where the driver does not say."""
    for line in _output("nvidia-smi", "--query-compute-apps=pid,used_memory", "--format=csv,noheader,nounits").splitlines():
        found, _, size = line.partition(",")
        if found.strip() == str(pid) and size.strip().isdigit():
            return float(size)
    return None


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
