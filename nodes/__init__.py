"""The ComfyUI side. Nothing is imported here: the rest of the pack and its tests run without ComfyUI."""
