"""AnimateDiff Turbo: short animated clips with SD1.5 in a few steps. ComfyUI loads the pack through `comfy_entrypoint`."""

WEB_DIRECTORY = "./nodes/web"


async def comfy_entrypoint():
    """The pack's ComfyExtension. Imports inside: pytest and the command line import this package without ComfyUI."""
    from .nodes.extension import AnimateDiffTurbo

    return AnimateDiffTurbo()
