"""pip, with a line for each package that it downloads and one sentence if it fails."""

import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from .cache import raise_if_disk_is_full
from .setup_error import SetupError
from .virtual_environment import interpreter, make_virtual_environment


def pip(python: Path, what: str, *arguments: str, command: str = "install") -> None:
    """Run pip for `what`, which its messages name; for the Python of this command, only to download or with --target.

    Raises SetupError with pip's own reason if it fails.
    """
    print(f"Installing {what} ...", flush=True)
    started = time.monotonic()
    options = [command, "--disable-pip-version-check", "--no-input", "--progress-bar", "off", *arguments]
    output: list[str] = []
    with (
        _pip_for(python) as start,
        subprocess.Popen([*start, *options], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process,
    ):
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


@contextmanager
def _pip_for(python: Path) -> Iterator[list[str]]:
    """Give the command that runs pip for `python`, which has none of its own on Debian and in environments of uv."""
    looked = subprocess.run([str(python), "-m", "pip", "--version"], capture_output=True)
    if looked.returncode == 0:
        yield [str(python), "-m", "pip"]
        return
    with TemporaryDirectory() as folder:
        make_virtual_environment(Path(folder))
        of_another = [] if python == Path(sys.executable) else ["--python", str(python)]  # pip 22.3 and newer know it
        yield [str(interpreter(Path(folder))), "-m", "pip", *of_another]


def _reason(output: list[str]) -> str:
    """Return pip's own last error, as the middle of a sentence."""
    errors = [line.removeprefix("ERROR: ") for line in output if line.startswith("ERROR: ")]
    reason = (errors or output[-1:] or ["it gave no reason"])[-1].strip()[:300]
    return reason if reason.endswith(".") else reason + "."
