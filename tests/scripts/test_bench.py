"""The benchmark runs and writes what it prints; how fast things are is not for a test to say."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path


def test_every_figure_has_a_median_and_its_range(
    start: Callable[..., subprocess.Popen[str]],
    ended: Callable[[subprocess.Popen[str]], tuple[int, str, str]],
    tmp_path: Path,
) -> None:
    file = tmp_path / "figures.json"
    status, printed, complaint = ended(start("bench.py", "--latent", "8", "--repeats", "1", "--json", str(file)))
    assert status == 0, complaint
    figures = json.loads(file.read_text())
    machine = figures.pop("machine")
    assert machine["latent"] == "8x8"
    assert {"sampling_speedup", "forward_ratio", "forward_ratio_uncached", "adapter_load", "adapter_patch"} <= set(
        figures
    )
    for name, figure in figures.items():
        assert 0 < figure["min"] <= figure["median"] <= figure["max"], name
        assert name in printed
