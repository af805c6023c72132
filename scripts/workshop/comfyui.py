"""ComfyUI with the mini family, in one process. tools/ and demo/ are on the path of each command (environment.run)."""


def start_comfyui(*arguments: str) -> None:
    """Import ComfyUI with the arguments of its main.py, and teach it the mini family. A second call does nothing."""
    from comfyui import find_comfyui, start_comfyui

    start_comfyui(find_comfyui(), arguments)
    import mini_family  # noqa: F401  (registers itself)


def device_arguments() -> tuple[str, ...]:
    """Return --cpu if torch finds no accelerator: ComfyUI does not start without it then."""
    from comfyui import has_accelerator

    return () if has_accelerator() else ("--cpu",)
