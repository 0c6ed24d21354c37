"""Bars of the medians, one panel for each scenario."""

from pathlib import Path

import matplotlib
import numpy as np
from scenarios import Scenario
from stats import spread

PARTS = {"denoise": "#4269d0", "vae": "#efb118", "copy": "#97bbf5", "encode": "#9c6b4e"}


def draw(results: dict[Scenario, dict[str, list[dict]]], path: Path) -> None:
    """Stacked parts of a clip; the line is the 10th to 90th percentile of the whole."""
    matplotlib.use("Agg")
    from matplotlib import pyplot

    heights = [0.9 + 0.34 * len(answers) for answers in results.values()]
    figure, panels = pyplot.subplots(len(results), 1, figsize=(9, sum(heights) + 0.5), height_ratios=heights, squeeze=False, layout="constrained")
    for panel, (scenario, answers) in zip(panels[:, 0], results.items(), strict=True):
        names, left = list(answers), np.zeros(len(answers))
        for part, colour in PARTS.items() if scenario.tail else [("denoise", PARTS["denoise"])]:
            widths = np.array([spread([answer["times"][part] for answer in answers[name]]).median for name in names])
            panel.barh(names, widths, left=left, color=colour, label=part)
            left += widths
        whole = [spread([answer["times"]["total" if scenario.tail else "denoise"] for answer in answers[name]]) for name in names]
        errors = np.abs([[one.median - one.p10 for one in whole], [one.p90 - one.median for one in whole]])
        panel.errorbar([one.median for one in whole], names, xerr=errors, fmt="none", ecolor="black", capsize=3)
        for name, one in zip(names, whole, strict=True):
            panel.annotate(f" {one.median:.0f}", (one.p90, name), va="center", fontsize=8)
        panel.invert_yaxis()
        panel.set_title(scenario.name, fontsize=9, loc="left")
        panel.spines[["top", "right"]].set_visible(False)
    panels[0, 0].legend(fontsize=7, loc="lower right")
    panels[-1, 0].set_xlabel("milliseconds (median; line: p10 to p90)")
    figure.savefig(path, dpi=110)
    pyplot.close(figure)
