"""A real ComfyUI server with the example workflows on it: for the demo, the pictures and the tests."""
