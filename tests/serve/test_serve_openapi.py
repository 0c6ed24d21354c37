"""/openapi.json against the endpoint's own page, field by field."""


import pytest

from animatediff_turbo import schema

# what fal's page says: type, required, default, range
SEED = {
    "prompt": ("string", True, None, None),
    "negative_prompt": ("string", False, "(bad quality, worst quality:1.2), ugly faces, bad anime", None),
    "num_frames": ("integer", False, 16, (1, 32)),
    "num_inference_steps": ("integer", False, 8, (1, 50)),
    "guidance_scale": ("number", False, 2, (0, 20)),
    "seed": ("integer", False, None, None),
    "fps": ("integer", False, 8, (1, 16)),
    "video_size": (None, False, "square", None),
}
DESCRIPTIONS = {
    "prompt": "The prompt to use for generating the video. Be as descriptive as possible for best results.",
    "num_frames": "The number of frames to generate for the video.",
    "num_inference_steps": "The number of inference steps to perform. 4-12 is recommended for turbo mode.",
    "guidance_scale": "The CFG (Classifier Free Guidance) scale is a measure of how close you want the model to stick to your prompt when looking for a related image to show you.",
    "fps": "Number of frames per second to extract from the video.",
    "video_size": "The size of the video to generate.",
}


@pytest.fixture(scope="module")
def document(server):
    return server.client.get("/openapi.json").json()


def resolved(document, node):
    while "$ref" in node:
        node = document["components"]["schemas"][node["$ref"].rpartition("/")[2]]
    return node


def body(document, path):
    return resolved(document, document["paths"][path]["post"]["requestBody"]["content"]["application/json"]["schema"])


def test_the_input_is_the_seeds_field_by_field(document):
    for path in ("/fal-ai/fast-animatediff/turbo/text-to-video", "/run/fal-ai/fast-animatediff/turbo/text-to-video"):
        found = body(document, path)
        assert set(found["properties"]) == set(SEED) and found["required"] == ["prompt"]
        for name, (kind, required, default, limits) in SEED.items():
            field = found["properties"][name]
            plain = next((each for each in field.get("anyOf", []) if each.get("type") == kind), field)
            assert plain.get("type") == kind and (name in found["required"]) == required and field.get("default") == default, name
            assert limits is None or (plain["minimum"], plain["maximum"]) == limits, name
            assert DESCRIPTIONS.get(name, field["description"]) == field["description"] and field["description"], name
        seed, _ = found["properties"]["seed"]["anyOf"]  # fal's page has no limits, and a client is told these before it is refused
        assert (seed["minimum"], seed["maximum"]) == (schema.SEED.minimum, schema.SEED.maximum)
        size, presets = (resolved(document, each) for each in found["properties"]["video_size"]["anyOf"])
        assert set(presets["enum"]) == set(schema.VIDEO_SIZES) and set(size["properties"]) == {"width", "height"}


def test_the_output_is_the_seeds(document):
    answer = document["paths"]["/run/fal-ai/fast-animatediff/turbo/text-to-video"]["post"]["responses"]["200"]["content"]["application/json"]["schema"]
    output = resolved(document, answer)
    assert set(output["properties"]) == {"video", "seed"} and output["required"] == ["video", "seed"]
    assert resolved(document, output["properties"]["video"])["required"] == ["url"] and output["properties"]["seed"]["type"] == "integer"
    assert output["properties"]["seed"]["description"] == "Seed used for generating the video."


def test_video_to_video_has_its_own_fields(document):
    found = body(document, "/fal-ai/fast-animatediff/turbo/video-to-video")["properties"]
    assert set(found) == (set(SEED) - {"num_frames", "video_size"}) | {"video_url", "first_n_seconds", "strength"}
    assert (found["num_inference_steps"]["default"], found["strength"]["default"], found["first_n_seconds"]["maximum"]) == (12, 0.7, 4)


def test_every_route_says_what_it_may_answer(document):
    for path, methods in document["paths"].items():
        for method, route in methods.items():
            assert route["operationId"] and {"401", "404"} & set(route["responses"]), (path, method)
            assert "security" not in route  # this server has no keys
    assert list(document["paths"]["/files/{name}"]["get"]["responses"]["200"]["content"]) == ["video/mp4"]
