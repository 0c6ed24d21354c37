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
    assert filled(prefix, PROMPT, None, NOW) == expected


def test_without_a_graph_dates_alone_are_filled_in():
    assert filled("%date:dd% %KSampler.seed%", None, None, NOW) == "07 %KSampler.seed%"


def test_names_come_before_titles_and_the_first_node_before_the_second():
    prompt = {
        "1": {"class_type": "Other", "inputs": {"seed": 1, "width": 512}, "_meta": {"title": "KSampler"}},
        "2": {"class_type": "KSampler", "inputs": {"seed": 2}, "_meta": {"title": ""}},
        "3": {"class_type": "KSampler", "inputs": {"seed": 3}, "_meta": {"title": "KSampler"}},
    }
    workflow = {"nodes": [{"id": 1, "properties": {"Node name for S&R": "mine"}}, {"id": 2, "properties": {"Node name for S&R": "KSampler"}}, {"id": 9}]}
    assert filled("%KSampler.seed% %mine.seed% %Other.seed%", prompt, workflow, NOW) == "2 1 %Other.seed%"
    assert filled("%width% %.width%", prompt | {"4": {"class_type": "", "inputs": {"width": 1}}}, workflow, NOW) == "%width% %.width%"


def test_values_are_written_as_the_page_writes_them():
    prompt = {"1": {"class_type": "T", "inputs": {"a": -1.0, "b": 0.5, "c": True, "d": 2**63, "e": None}}}
    assert filled("%T.a% %T.b% %T.c% %T.d% %T.e%", prompt, None, NOW) == "-1 0.5 true 9223372036854775808 %T.e%"
