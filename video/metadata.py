"""Workflow metadata inside a video file, written so that ComfyUI's frontend finds it again when the file is dropped on the canvas."""
import json
import re
from io import BytesIO

from PIL import TiffTags
from PIL.TiffImagePlugin import ImageFileDirectory_v2

_JSON_STRING = re.compile(r'"(?:[^"\\]+|\\.)*"')
_EXIF_PROMPT = 0x0110
_EXIF_OTHERS = 0x010F


def json_tags(metadata: dict[str, object]) -> dict[str, str]:
    """Each value as JSON that every reader of ComfyUI files understands, dumped once (a value dumped twice is not restored).

    - ASCII only: EXIF is read byte by byte, and lone surrogates have no UTF-8.
    - NaN and infinities become null. ComfyUI puts NaN into the prompt (`is_changed`), which JavaScript's JSON.parse refuses.
    - Braces inside strings are written as \\u007b and \\u007d: for webm the frontend finds the end of the JSON by counting braces.

    Raises ValueError for a value that JSON cannot hold.
    """
    return {key: _dump(key, value) for key, value in metadata.items()}


def webp_exif(tags: dict[str, str]) -> bytes:
    """The EXIF block ComfyUI reads: "prompt:{json}" in 0x0110, every other key as "key:{json}" from 0x010F downward."""
    others = [key for key in tags if key != "prompt"]
    numbers = {key: _EXIF_OTHERS - index for index, key in enumerate(others)} | ({"prompt": _EXIF_PROMPT} if "prompt" in tags else {})
    directory = ImageFileDirectory_v2()
    for key, number in numbers.items():
        directory.tagtype[number] = TiffTags.ASCII  # some numbers below 0x010D are integers by the standard
        directory[number] = f"{key}:{tags[key]}"
    buffer = BytesIO()
    directory.save(buffer)
    return buffer.getvalue()


def _dump(key: str, value: object) -> str:
    try:
        plain = json.loads(json.dumps(value), parse_constant=lambda name: None)
    except (TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"metadata {key!r} cannot be written as JSON ({error}); pass plain dicts, lists, strings and numbers.") from error
    text = json.dumps(plain, separators=(",", ":"), allow_nan=False)
    return _JSON_STRING.sub(lambda string: string[0].replace("{", "\\u007b").replace("}", "\\u007d"), text)
