"""Run the packs one after the other, and say of each row what it measured."""

import json
import os
import subprocess
import sys
import tempfile
from datetime import date
from pathlib import Path
from typing import Any

from .. import REPOSITORY
from .pack_list import CORE, PACKS

Result = dict[str, Any]


def run_packs(packs: Path, names: list[str], file: Path | None = None) -> list[Result]:
    """Run the rows of these packs, of which clones lie in the folder `packs`, and print them.

    Each pack's result is put into the JSON `file` at once, in place of an older one; a pack without a clone keeps it.
    """
    results = []
    for name in names:
        if name != CORE and not (packs / name).is_dir():
            why = f"there is no {name} in --packs"
            results.append({"pack": name, "commit": "", "why": why, "rows": [], "is_missing": True})
        else:
            results.append(_run(name, packs))
            if file:
                _keep(results[-1], file)
        print("\n".join(lines(results[-1])), flush=True)
    return results


def _keep(result: Result, file: Path) -> None:
    known = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else []
    others = {other["pack"]: other for other in known}
    others[result["pack"]] = result | {"date": date.today().isoformat()}
    kept = [others[pack] for pack in PACKS if pack in others]
    file.write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")


def _run(name: str, packs: Path) -> Result:
    with tempfile.TemporaryDirectory() as folder:
        result, log = Path(folder) / "result.json", Path(folder) / "log"
        comfy = Path(os.environ["COMFYUI_PATH"]) / "comfy"  # ComfyUI lets packs import its modules by their bare names
        path = os.pathsep.join([str(REPOSITORY / "scripts"), os.environ.get("PYTHONPATH", ""), str(comfy)])
        command = [sys.executable, "-m", "workshop.neighbours.one_pack", name, str(packs), str(result)]
        with log.open("wb") as output:
            subprocess.run(command, stdout=output, stderr=subprocess.STDOUT, env=os.environ | {"PYTHONPATH": path})
        if result.is_file():
            return json.loads(result.read_text(encoding="utf-8"))
        said = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        return {"pack": name, "commit": "", "why": f"it ended ComfyUI: {said[-1] if said else ''}", "rows": []}


def lines(result: Result) -> list[str]:
    """Return a line for each row of a pack: pack, commit, row, order, figures, whether they are as expected."""
    where = f"{result['pack']} {result['commit']}".strip()
    if result["why"]:
        return [f"not run  {where}: {result['why']}"]
    return [f"{_verdict(row):8} {where} | {_described(row)}" for row in result["rows"]]


def _verdict(row: Result) -> str:
    if "missing" in row:
        return "not run"
    return "ok" if is_ok(row) else "WRONG"


def _described(row: Result) -> str:
    figures = [f"{check['what']} {figure(check['figure'])} {check['expected']}".strip() for check in row["checks"]]
    with_sun = "SUNNegative" if row["section"] == "negative" else "SUN"
    what = f"no node {row['missing']}" if "missing" in row else ", ".join(figures) or row["error"]
    return " | ".join([with_sun, row["name"], row["order"], what])


def is_ok(row: Result) -> bool:
    """Tell whether all figures of a row are as expected. A node that is missing has none."""
    return "error" not in row and all(check["ok"] for check in row["checks"])


def figure(value: float) -> str:
    """Write a count as it is, a small difference in six places and another in two."""
    if isinstance(value, int):
        return str(value)
    return f"{value:.6f}" if abs(value) < 1e-3 else f"{value:.2f}"


def all_ok(results: list[Result]) -> bool:
    """Tell whether every pack that is there could be loaded, and all its rows are as expected."""
    there = [result for result in results if "is_missing" not in result]
    return not any(result["why"] for result in there) and all(is_ok(row) for result in there for row in result["rows"])
