"""ControlNets under core's Context Windows: core shows every window the hints of the first frames, here each sees its own."""

import copy

import comfy.controlnet
import comfy.patcher_extension
import comfy.samplers
from comfy.context_windows import IndexListCallbacks, IndexListContextHandler, IndexListContextWindow

from .recipe import KEY


def shown(window: IndexListContextWindow) -> list[int]:
    """The frames that the UNet sees in a window; core's causal fix puts the one before in front of them."""
    anchor = getattr(window, "causal_anchor_index", None)
    return list(window.index_list) if anchor is None or anchor < 0 else [anchor, *window.index_list]


def hint_frames(guider: comfy.samplers.CFGGuider) -> set[int]:
    """How many pictures the run's ControlNets have."""
    return {len(control.cond_hint_original) for control in _controls(guider) if control.cond_hint_original is not None}


def slice_hints(guider: comfy.samplers.CFGGuider, frames: int) -> None:
    """For this run alone: every ControlNet with a hint for each frame is shown those of the window. guider's own conds and handler change, nothing else."""
    handler = guider.model_options.get("context_handler")
    if not isinstance(handler, IndexListContextHandler) or handler.dim != 0 or frames not in hint_frames(guider):
        return
    copies = _copy_controls(guider)
    hints = [(control, control.cond_hint_original) for control in copies if len(control.cond_hint_original) == frames]

    def show_own(handler, model, x_in, conds, timestep, model_options, window_index, window, *_) -> None:
        for control, hint in hints:
            control.cond_hint_original, control.cond_hint = hint[shown(window)], None

    handler = copy.copy(handler)  # with callbacks of its own: the node's handler lives on
    callbacks = handler.callbacks.get("callbacks", {})
    handler.callbacks = {"callbacks": {kind: {key: list(each) for key, each in found.items()} for kind, found in callbacks.items()}}
    comfy.patcher_extension.add_callback_with_key(IndexListCallbacks.EVALUATE_CONTEXT_WINDOWS, KEY, show_own, handler.callbacks)
    guider.model_options["context_handler"] = handler


def _is_core(control: comfy.controlnet.ControlBase | None) -> bool:
    # other packs' ControlNets know of windows by themselves
    return control is not None and type(control).__module__ == comfy.controlnet.__name__


def _controls(guider: comfy.samplers.CFGGuider) -> list[comfy.controlnet.ControlBase]:
    found = []
    for conds in guider.conds.values():
        for cond in conds:
            control = cond.get("control")
            while _is_core(control):
                found.append(control)
                control = control.previous_controlnet
    return found


def _copy_controls(guider: comfy.samplers.CFGGuider) -> list[comfy.controlnet.ControlBase]:
    """Puts copies in place of the ControlNets of guider's conds, one for each, whoever shares it."""
    copies: dict[comfy.controlnet.ControlBase, comfy.controlnet.ControlBase] = {}

    def copied(control):
        if not _is_core(control):
            return control
        if control not in copies:
            copies[control] = control.copy()
            copies[control].set_previous_controlnet(copied(control.previous_controlnet))
        return copies[control]

    for conds in guider.conds.values():
        for cond in conds:
            if "control" in cond:
                cond["control"] = copied(cond["control"])
    return list(copies.values())
