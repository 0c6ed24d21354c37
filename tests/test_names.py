"""Placeholders in the names of files."""

from datetime import datetime

import pytest

from animatediff_turbo.nodes.names import filled

NOW = datetime(2026, 3, 7, 9, 5, 42)
PROMPT = {
    "1": {"class_type": "KSampler", "inputs": {"seed": 7, "model": ["2", 0]}, "_meta": {"title": "My sampler"}},
    "2": {"class_type": "CLIPTextEncode", "inputs": {"text": 'a/b: "c"?'}},
}


@pytest.mark.parametrize(
    ("prefix", "expected"),
    [
        ("clip", "clip"), ("%date:yyyy-MM-dd%/clip", "2026-03-07/clip"), ("%date:d.M.yy h-mm-ss%", "7.3.26 9-05-42"), ("%date:yyyy/MM%/%date:hh:mm%", "2026/03/09_05"),
        ("%KSampler.seed%_%My sampler.seed%", "7_7"), ("%CLIPTextEncode.text%", "a_b_ _c__"), ("%KSampler.model%", "%KSampler.model%"),
        ("%nobody.seed% %width%x%height% 100% %", "%nobody.seed% %width%x%height% 100% %"),
    ],
)  # fmt: skip
def test_a_name_is_filled_in_as_cores_nodes_have_it(prefix, expected):
    assert filled(prefix, PROMPT, NOW) == expected


def test_without_a_graph_dates_alone_are_filled_in():
    assert filled("%date:dd% %KSampler.seed%", None, NOW) == "07 %KSampler.seed%"
