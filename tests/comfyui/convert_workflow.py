"""A workflow as the canvas saves it to the prompt that the frontend queues (its graphToPrompt), for workflows without subgraphs."""

WIDGETS = ("INT", "FLOAT", "STRING", "BOOLEAN", "COMBO")


def to_prompt(workflow, object_info):
    """API prompt of a UI workflow. object_info: the server's, for names and order of the widgets."""
    sources = {link[0]: [str(link[1]), link[2]] for link in workflow["links"]}
    prompt = {}
    for node in workflow["nodes"]:
        if node["type"] not in object_info:  # notes
            continue
        inputs = dict(zip(*_widgets(object_info[node["type"]], node["widgets_values"]), strict=True))
        inputs |= {slot["name"]: sources[slot["link"]] for slot in node["inputs"] if slot["link"] is not None}
        title = node.get("title") or object_info[node["type"]]["display_name"]
        prompt[str(node["id"])] = {"inputs": inputs, "class_type": node["type"], "_meta": {"title": title}}
    return prompt


def _widgets(info, values):
    """Names and values of a node's widgets; the canvas adds a value behind every seed that says what becomes of it after a run."""
    names, kept, values = [], [], iter(values)
    for group in ("required", "optional"):
        for name in info["input_order"].get(group, []):
            kind, *options = info["input"][group][name]
            if not isinstance(kind, list) and kind not in WIDGETS:
                continue
            names.append(name)
            kept.append(next(values))
            if options and options[0].get("control_after_generate"):
                next(values)
    return names, kept
