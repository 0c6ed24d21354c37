"""Frames to files by PyAV and Pillow."""
