"""SpeedUpNet (SUN, arXiv 2312.08887) for ComfyUI: the method, without a node in sight."""
