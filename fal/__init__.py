"""fal.ai's AnimateDiff endpoints over its queue: one paid request for one clip, whatever happens on the way. Neither ComfyUI nor torch is needed.

Not fal_client, which sends the paid request up to ten times when the answer is lost on the way (measured with fal_client 1.0.3).
"""
