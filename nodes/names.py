"""The places in a file's name that ComfyUI's page fills in, which it does for core's nodes alone."""

import re
from collections.abc import Mapping
from datetime import datetime

_PLACE = re.compile(r"%([^%]+)%")
_DATE = re.compile(r"yyyy|yy|dd?|MM?|hh?|mm?|ss?")
_PARTS = {"d": "day", "M": "month", "h": "hour", "m": "minute", "s": "second"}
_FORBIDDEN = re.compile(r'[?<>:*|"\\\x00-\x1f\x7f]')  # in names on some system


def filled(prefix: str, prompt: Mapping[str, Mapping] | None, now: datetime) -> str:
    """prefix with %date:yyyy-MM-dd hh-mm-ss% and %node.input% replaced as ComfyUI's frontend does (src/utils/searchAndReplace.ts, formatUtil.ts).

    Args:
        prompt: the running graph in API format; node is a class or a title in it. What is not found stays as it is.
    """
    return _PLACE.sub(lambda match: _found(match, prompt or {}, now), prefix)


def _found(match: re.Match, prompt: Mapping[str, Mapping], now: datetime) -> str:
    kind, colon, form = match[1].partition(":")
    if kind == "date" and colon:
        return _FORBIDDEN.sub("_", _DATE.sub(lambda part: _dated(part[0], now), form))
    name, _, widget = match[1].rpartition(".")
    for node in prompt.values():
        value = node.get("inputs", {}).get(widget)
        if name in (node.get("class_type"), node.get("_meta", {}).get("title")) and value is not None and not isinstance(value, list):
            return _FORBIDDEN.sub("_", str(value)).replace("/", "_")
    return match[0]


def _dated(part: str, now: datetime) -> str:
    if part.startswith("y"):
        return f"{now.year}"[-len(part) :]
    return str(getattr(now, _PARTS[part[0]])).zfill(len(part))
