"""How far the running node is, and whether somebody wants it to end."""

import comfy.model_management
import comfy.utils


def stop_when_asked() -> None:
    """Raises ComfyUI's own interruption when somebody asked for it. To be called in the running node's own thread."""
    comfy.model_management.throw_exception_if_processing_interrupted()


class Progress:
    """Core's progress bar of the running node, and its interrupt."""

    def __init__(self, total: int) -> None:
        """total: what the bar says when all is done."""
        self._bar = comfy.utils.ProgressBar(total)

    def __call__(self, done: int) -> None:
        """Moves the bar; otherwise as `stop_when_asked`."""
        stop_when_asked()
        self._bar.update_absolute(done)
