class SunError(ValueError):
    """Something an artist can put right; the message is one sentence that ComfyUI shows on the node."""
