"""Placeholders in the names of files."""

from datetime import datetime

import pytest

from animatediff_turbo.nodes.names import ENDING, LONGEST, filled

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


def prompt_of(**inputs):
    return {"1": {"class_type": "T", "inputs": inputs}}


@pytest.mark.parametrize("prefix", ["%T.a%", "x/%T.a%_%T.b%", "%T.a%/%T.b%", "%date:yyyy/MM%/%T.c% %T.a%-%T.b%", "%T.c%%T.a%%width%"])
@pytest.mark.parametrize("letter", ["a", "\u00e9", "e\u0301", "\u732b", "\U0001f408", "\u0915\u093f"], ids=["a", "accent", "accent apart", "kanji", "emoji", "vowel sign"])
def test_what_is_filled_in_is_cut_where_the_name_would_be_too_long(prefix, letter):
    name = filled(prefix, prompt_of(a=letter * 300, b=letter * 90, c=7), None, NOW)
    *folders, last = name.split("/")
    assert all(len(folder.encode()) <= LONGEST for folder in folders)
    assert LONGEST - 3 * len(letter.encode()) <= max(len(last.encode()) + ENDING, *map(len, map(str.encode, folders)), 0) <= LONGEST
    rest = name.replace(letter, "")
    assert len(rest) <= 20 and not any(part in rest for part in letter) and ("7" in name) == ("%T.c%" in prefix)


def test_short_values_stay_whole_beside_long_ones_and_names_that_fit_are_not_touched():
    assert filled("%T.a%_%T.b%", prompt_of(a="x" * 300, b="seed 7"), None, NOW) == "x" * (LONGEST - ENDING - 7) + "_seed 7"
    assert filled("%T.a%", prompt_of(a="x" * (LONGEST - ENDING)), None, NOW) == "x" * (LONGEST - ENDING)
    assert filled("y" * 300 + "%T.a%", prompt_of(a="x" * 9), None, NOW) == "y" * 300 + "x" * 9  # what somebody typed is his


def test_half_a_character_is_no_reason_to_fail():
    assert len(filled("%T.a%", prompt_of(a="\ud83d" * 300), None, NOW)) == LONGEST - ENDING
