"""The motion module, its checkpoints, schedules and samplers: pure torch, no ComfyUI, no diffusers."""
