"""AnimateDiff without ComfyUI: diffusers loads the base model, everything else is the pack's own."""
