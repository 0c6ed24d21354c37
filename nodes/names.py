"""The places in a file's name that ComfyUI's page fills in, which it does for core's nodes alone."""

import re
import unicodedata
from collections.abc import Mapping
from datetime import datetime

_PLACE = re.compile(r"%([^%]+)%")
_DATE = re.compile(r"yyyy|yy|dd?|MM?|hh?|mm?|ss?")
_PARTS = {"d": "day", "M": "month", "h": "hour", "m": "minute", "s": "second"}
_FORBIDDEN = re.compile(r'[?<>:*|"\\\x00-\x1f\x7f]')  # in names on some system
_PROPERTY = "Node name for S&R"
LONGEST = 255
"""Bytes of UTF-8 in a name, on the systems that take the fewest."""
ENDING = 16
"""Bytes of what follows the prefix: _00001_.webm, and a counter that grows."""


def filled(prefix: str, prompt: Mapping[str, Mapping] | None, workflow: Mapping | None, now: datetime) -> str:
    """prefix with %date:yyyy-MM-dd hh-mm-ss% and %node.input% replaced as ComfyUI's frontend does (src/utils/searchAndReplace.ts, formatUtil.ts).

    Inputs, a prompt for example, are cut between two characters, the longest ones first, where a name would be too long with its counter and ending.

    Args:
        prompt: the running graph in API format.
        workflow: the same as the page saves it, for names that people gave nodes there.
    Returns: what is not found stays as it is. node is a node's name for search and replace, which is its class unless somebody changed it, or a title.
    """
    names = {str(node.get("id")): node.get("properties", {}).get(_PROPERTY) for node in (workflow or {}).get("nodes", [])}
    nodes = [(names.get(number) or node.get("class_type"), node) for number, node in (prompt or {}).items()]
    called = {name: node for name, node in reversed(nodes)}
    titled = {node.get("_meta", {}).get("title"): node for _, node in reversed(nodes)}
    whole = _with_inputs(prefix, {**titled, **called}, now, None)
    tries = (_with_inputs(prefix, {**titled, **called}, now, size) for size in range(LONGEST, 0, -1))
    return whole if _fits(whole) else next(filter(_fits, tries), whole)


def _with_inputs(prefix: str, nodes: Mapping[str, Mapping], now: datetime, size: int | None) -> str:
    """prefix, filled in; of each input at most size bytes."""
    return _PLACE.sub(lambda match: _found(match, nodes, now, size), prefix)


def _fits(name: str) -> bool:
    *folders, last = (len(part.encode("utf-8", "replace")) for part in name.split("/"))
    return max([*folders, last + ENDING]) <= LONGEST


def _found(match: re.Match, nodes: Mapping[str, Mapping], now: datetime, size: int | None) -> str:
    kind, colon, form = match[1].partition(":")
    if kind == "date" and colon:
        return _FORBIDDEN.sub("_", _DATE.sub(lambda part: _dated(part[0], now), form))
    name, _, widget = match[1].rpartition(".")
    value = nodes[name].get("inputs", {}).get(widget) if name and name in nodes else None
    return match[0] if value is None or isinstance(value, list | dict) else _cut(_FORBIDDEN.sub("_", _text(value)).replace("/", "_"), size)


def _cut(text: str, size: int | None) -> str:
    """text, or as much of its start as is size bytes of UTF-8."""
    coded = text.encode("utf-8", "replace")
    if size is None or len(coded) <= size:
        return text
    end = len(coded[:size].decode("utf-8", "ignore"))
    while end and unicodedata.category(text[end]).startswith("M"):  # an accent that stands alone
        end -= 1
    return text[:end]


def _text(value: object) -> str:
    """As the page, which knows one kind of number, writes it."""
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) else str(value)


def _dated(part: str, now: datetime) -> str:
    if part.startswith("y"):
        return f"{now.year}"[-len(part) :]
    return str(getattr(now, _PARTS[part[0]])).zfill(len(part))
