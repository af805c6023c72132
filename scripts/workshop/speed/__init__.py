"""How fast SUN is, measured on U-Nets with random weights inside ComfyUI's own samplers and model management."""
