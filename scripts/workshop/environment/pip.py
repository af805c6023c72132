"""pip, with a line for each package that it downloads and one sentence if it fails."""

import re
import subprocess
import time
from pathlib import Path

from .cache import raise_if_disk_is_full
from .setup_error import SetupError


def pip(python: Path, what: str, *arguments: str, command: str = "install") -> None:
    """Run pip for `what`, which its messages name. Raises SetupError with pip's own reason if it fails."""
    print(f"Installing {what} ...", flush=True)
    started = time.monotonic()
    start = [str(python), "-m", "pip", command, "--disable-pip-version-check", "--no-input", "--progress-bar", "off"]
    output: list[str] = []
    with subprocess.Popen([*start, *arguments], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        assert process.stdout is not None
        try:
            for line in process.stdout:
                output.append(line.rstrip())
                if re.match(r"\s*(Downloading|Using cached|Installing collected)", line):
                    minutes, seconds = divmod(int(time.monotonic() - started), 60)
                    print(f"  {minutes}:{seconds:02}  {line.strip()[:90]}", flush=True)
        except BaseException:
            process.terminate()
            raise
    if process.returncode:
        raise_if_disk_is_full("\n".join(output))
        raise SetupError(
            f"pip could not install {what}: {_reason(output)} Is there a network, and does pip reach its package index?"
        )


def _reason(output: list[str]) -> str:
    """Return pip's own last error, as the middle of a sentence."""
    errors = [line.removeprefix("ERROR: ") for line in output if line.startswith("ERROR: ")]
    reason = (errors or output[-1:] or ["it gave no reason"])[-1].strip()[:300]
    return reason if reason.endswith(".") else reason + "."
