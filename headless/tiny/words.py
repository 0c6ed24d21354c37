"""What people call things in the tiny world: captions in many wordings, and the vocabulary."""

import random
import re
from collections.abc import Mapping
from types import MappingProxyType

from .world import BACKGROUNDS, COLOURS, DIRECTIONS, SHAPES, Scene

SYNONYMS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "circle": ("circle", "circle", "ball", "disc", "dot"),
        "square": ("square", "square", "box", "block"),
        "triangle": ("triangle", "triangle", "pyramid"),
        "star": ("star",),
        "magenta": ("magenta", "magenta", "pink", "purple"),
        "cyan": ("cyan", "cyan", "turquoise"),
        "grey": ("grey", "grey", "gray"),
        "navy": ("navy", "navy", "dark blue", "navy blue"),
        "left": ("left", "left", "to the left", "leftwards"),
        "right": ("right", "right", "to the right", "rightwards"),
        "up": ("up", "up", "upwards", "to the top"),
        "down": ("down", "down", "downwards", "to the bottom"),
    }
)
VERBS = ("moving", "moving", "going", "flying", "sliding", "drifting", "travelling", "floating", "gliding", "heading", "moves", "goes", "flies", "slides")
SURFACES = ("on a {} background", "on a {} background", "over a {} background", "against {}", "on {}", "in front of a {} background", "{} background")
# Words that say nothing about a scene. They are strewn in, so that the model passes over what people add out of habit.
FILLERS = (
    "simple", "plain", "flat", "soft", "small", "little", "big", "large", "single", "one", "bright", "clean", "smooth", "slow", "slowly", "steady",
    "steadily", "fast", "quickly", "minimal", "abstract", "geometric", "video", "clip", "animation", "animated", "movie", "film", "gif", "loop",
    "footage", "short", "nice", "beautiful", "pretty", "cute", "great", "good", "best", "masterpiece", "quality", "high", "detailed", "detail",
    "sharp", "hd", "4k", "8k", "cinematic", "realistic", "illustration", "drawing", "render", "style", "art", "picture", "image", "photo", "scene",
    "shape", "object", "thing", "colour", "color", "coloured", "colored", "please", "show", "me", "very", "really", "some", "this", "that", "it",
    "there", "with", "and", "of", "at", "is", "are", "was", "the", "an", "a", "in", "by", "for", "from", "trail", "glowing", "solid", "filled",
    "paper", "vector", "cartoon", "bad", "worst", "ugly", "faces", "face", "anime", "low", "blurry", "noisy", "watermark", "text", "jpeg",
    "artifacts", "deformed", "motion", "move", "camera", "still", "frame", "frames", "perfectly", "straight", "across", "through", "screen", "view",
    "center", "centre", "middle", "new", "old", "modern", "retro", "pixel", "digital", "computer", "graphics", "graphic", "design", "basic", "lone",
    "tiny", "quiet", "calm",
)  # fmt: skip


def caption(scene: Scene, rng: random.Random) -> str:
    """A random wording of a scene; about one in three is the plain sentence."""
    if rng.random() < 0.3:
        return scene.prompt
    shape, colour, direction, background = (rng.choice(SYNONYMS.get(word, (word,))) for word in (scene.shape, scene.colour, scene.direction, scene.background))
    surface = rng.choice(SURFACES).format(background)
    motion = f"{rng.choice(VERBS)} {direction}"
    thing = rng.choice((f"a {colour} {shape}", f"a {colour} {shape}", f"{colour} {shape}", f"a {shape} in {colour}", f"one {colour} {shape}"))
    parts = [f"{thing} {motion}", surface] if rng.random() < 0.6 else [thing, motion, surface]
    if rng.random() < 0.5:
        rng.shuffle(parts)
    words = rng.choice((" ", ", ")).join(parts).split()
    for _ in range(rng.choice((0, 0, 1, 2, 3))):
        words.insert(rng.randrange(len(words) + 1), rng.choice(FILLERS))
    return " ".join(words)


def vocabulary() -> list[str]:
    """Every word and punctuation mark that the tokenizer knows, sorted."""
    phrases = [*SHAPES, *COLOURS, *BACKGROUNDS, *DIRECTIONS, *VERBS, *SURFACES, *FILLERS, "a an one in moving on background , . : ; ! ? - ' ( )"]
    phrases += [word for words in SYNONYMS.values() for word in words]
    return sorted({word for phrase in phrases for word in re.findall(r"[a-z0-9]+|[^\sa-z0-9{}]", phrase)})
