"""Frames to video files and back, by PyAV and Pillow; nothing here knows ComfyUI."""
