"""The command that runs public packs; the packs themselves are no part of the tests."""

import importlib
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from workshop import REPOSITORY
from workshop.neighbours.pack_list import PACKS
from workshop.neighbours.packs import commit_of
from workshop.neighbours.published import PAGE, SECTIONS, packs_table, publish, table
from workshop.neighbours.rows import Check, Row
from workshop.neighbours.running import all_ok, lines, run_packs

MODULES = sorted({module for pack in PACKS.values() for module in pack.modules})


def rows_of(pack: str) -> list[Row]:
    modules = [importlib.import_module(f"workshop.neighbours.{name}") for name in PACKS[pack].modules]
    return [row for module in modules for row in module.ROWS.get(pack, [])]


@pytest.mark.parametrize("pack", PACKS)
def test_the_page_has_every_row(pack: str) -> None:
    """`python3 scripts/neighbours.py --markdown ...` writes its tables."""
    text = PAGE.read_text(encoding="utf-8")
    rows = rows_of(pack)
    assert rows
    for row in rows:
        assert row.section in SECTIONS
        _, _, rest = text.partition(f"<!-- {row.section}: start -->")
        section = rest.partition(f"<!-- {row.section}: end -->")[0].splitlines()
        assert any(f"| {row.name} |" in line and pack in line for line in section), row.name


def test_own_tests_that_rows_name_are_there() -> None:
    tests = {row.test for pack in PACKS for row in rows_of(pack)} - {""}
    assert tests and all((REPOSITORY / "tests" / "sun_core" / test).is_file() for test in tests)


def test_rows_belong_to_packs_that_are_listed() -> None:
    for module in MODULES:
        for pack in importlib.import_module(f"workshop.neighbours.{module}").ROWS:
            assert module in PACKS[pack].modules


def test_a_pack_that_is_not_there_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A figure of it from another time stays."""
    file = tmp_path / "file.json"
    file.write_text(json.dumps([result("RES4LYF", "0.3.75", "abc", 0.0)]))
    results = run_packs(tmp_path, ["RES4LYF"], file)
    assert capsys.readouterr().out == "not run  RES4LYF: there is no RES4LYF in --packs\n"
    assert json.loads(file.read_text())[0]["commit"] == "abc"
    assert all_ok(results), "nothing was measured"


def result(pack: str, version: str, commit: str, figure: float, **more: Any) -> dict[str, Any]:
    check = {
        "what": "orders",
        "figure": figure,
        "least": 0.0,
        "most": 1e-5,
        "ok": figure < 1e-5,
        "expected": "(< 1e-05)",
    }
    row = {"name": "A node", "order": "both", "test": "", "section": "works", "checks": [check], **more}
    return {"pack": pack, "comfyui": version, "commit": commit, "why": None, "rows": [row]}


def test_a_figure_out_of_its_bounds_and_an_error_are_wrong() -> None:
    bad = result("RES4LYF", "0.3.75", "abc", 0.5)
    broken = result("RES4LYF", "0.3.75", "abc", 0.0, checks=[], error="KeyError: 'x'")
    assert not all_ok([bad]) and not all_ok([broken])
    assert lines(bad) == ["WRONG    RES4LYF abc | SUN | A node | both | orders 0.50 (< 1e-05)"]
    assert lines(broken)[0].endswith("KeyError: 'x'")
    missing = result("RES4LYF", "0.3.75", "abc", 0.0, checks=[], missing="ANode")
    assert all_ok([missing]) and lines(missing) == ["not run  RES4LYF abc | SUN | A node | both | no node ANode"]
    assert all_ok([result("RES4LYF", "0.3.75", "abc", 0.0)])
    assert not all_ok([result("RES4LYF", "0.3.75", "abc", 0.0) | {"why": "it does not load", "rows": []}])


def test_what_versions_have_in_common_is_said_once() -> None:
    runs = {version: {"RES4LYF": result("RES4LYF", version, "abc", 0.0)} for version in ("0.3.75", "0.33.0")}
    assert table("works", runs).splitlines()[2:] == ["| RES4LYF | A node | both | orders 0.000000 |  |"]
    assert packs_table(runs).endswith("| [RES4LYF](https://github.com/ClownsharkBatwing/RES4LYF) | abc |")
    runs["0.33.0"]["RES4LYF"] = result("RES4LYF", "0.33.0", "def", 0.25)
    figures = "0.3.75: orders 0.000000; 0.33.0: orders 0.25"
    assert table("works", runs).splitlines()[2:] == [f"| RES4LYF | A node | both | {figures} |  |"]
    assert packs_table(runs).endswith("| 0.3.75: abc; 0.33.0: def |")


@pytest.mark.parametrize(
    ("check", "ok"),
    [(Check("d", 0.01, most=0.1), True), (Check("d", 0.2, most=0.1), False), (Check("n", 3, 4, 4), False)],
)
def test_a_check_knows_its_bounds(check: Check, ok: bool) -> None:
    assert check.ok is ok


@pytest.mark.parametrize("versions", [(), ("0.3.75", "0.33.0")])
def test_a_file_of_no_version_or_of_two_is_not_published(tmp_path: Path, versions: tuple[str, ...]) -> None:
    (tmp_path / "file.json").write_text(json.dumps([result("RES4LYF", version, "abc", 0.0) for version in versions]))
    with pytest.raises(SystemExit, match=f"has figures of {len(versions)} versions"):
        publish([tmp_path / "file.json"])


def test_an_error_is_shown_in_place_of_figures() -> None:
    runs = {"0.3.75": {"RES4LYF": result("RES4LYF", "0.3.75", "abc", 0.0, checks=[], error="KeyError: 'x'")}}
    assert table("works", runs).splitlines()[2:] == ["| RES4LYF | A node | both | KeyError: 'x' |  |"]


@pytest.mark.parametrize(
    "act",
    [
        "import subprocess; subprocess.run(['true'])",
        "import socket; socket.create_connection(('127.0.0.1', 9))",
        "import socket; socket.socket(type=socket.SOCK_DGRAM).sendto(b'x', ('127.0.0.1', 9))",
        "import socket; socket.gethostbyname('localhost')",
        "import multiprocessing as m; m.get_context('spawn').Process(target=print).start()",
    ],
)
def test_packs_start_no_program_and_connect_to_nothing(act: str) -> None:
    code = f"from workshop.neighbours.packs import forbid_programs_and_network as f; f(); {act}"
    done = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY / "scripts", capture_output=True, text=True)
    assert done.returncode == 1 and "PermissionError: a pack tried" in done.stderr


def test_the_commit_is_that_of_the_file_beside_a_pack_without_git(tmp_path: Path) -> None:
    assert commit_of(tmp_path) == "unknown"
    (tmp_path / "COMMIT").write_text("0123456789abcdef\n")
    assert commit_of(tmp_path) == "0123456"


def test_a_folder_of_packs_is_asked_for(
    start: Callable[..., subprocess.Popen[str]], ended: Callable[[subprocess.Popen[str]], tuple[int, str, str]]
) -> None:
    status, _, said = ended(start("neighbours.py"))
    assert status == 2 and "--packs must name a folder of clones" in said
