"""Medians, their spread, and the ratio of two with its interval."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Spread:
    """median, 10th and 90th percentile of count values."""

    median: float
    p10: float
    p90: float
    count: int


def spread(values: list[float]) -> Spread:
    """Of at least one value."""
    p10, median, p90 = np.percentile(np.asarray(values, dtype=float), (10, 50, 90))
    return Spread(float(median), float(p10), float(p90), len(values))


def ratio(baseline: list[float], ours: list[float], draws: int = 4000, seed: int = 0) -> tuple[float, float, float]:
    """median(baseline) / median(ours), and the percentile bootstrap's 95 % interval around it."""
    generator = np.random.default_rng(seed)
    medians = [np.median(generator.choice(np.asarray(values, dtype=float), (draws, len(values))), axis=1) for values in (baseline, ours)]
    low, high = np.percentile(medians[0] / medians[1], (2.5, 97.5))
    return float(np.median(baseline) / np.median(ours)), float(low), float(high)


def interleaved(names: list[str], rounds: int) -> list[str]:
    """A B C A B C: drift of the machine meets all alike."""
    return [name for _ in range(rounds) for name in names]
