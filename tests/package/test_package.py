"""What the registry and an artist get: nothing that the registry's scan flags, nothing that leads nowhere."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
LARGEST = 3_000_000  # bytes; the pack's code with pictures, without weights
WANTED = {
    *("__init__.py", "nodes", "sun_core", "conversion", "web", "locales", "tools", "example_workflows", "subgraphs"),
    *("README.md", "README.zh.md", "CHANGELOG.md", "LICENSE", "pyproject.toml", "docs"),
}

SCANNED = {".py", ".js", ".md", ".json"}
FLAGGED = (
    *map(re.escape, (".connect(", ".bind(", ".send(", "subprocess", "os.environ.get(", "raw.githubusercontent.com")),
    r"\bimport pickle\b",
    r"\b(?:eval|exec)\s*\(",  # the calls, torch's and JavaScript's methods too; not words such as "evaluation"
)
"""What the registry's scan looks for in raw text, comments and documents included. A hit hides the pack."""

LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
COMMAND = re.compile(r"\b(?:tools|scripts)/[\w/]+\.py\b")
CLONE_SECTION = re.compile(r"^## (?:From a clone|从克隆的仓库).*?(?=^## |\Z)", re.MULTILINE | re.DOTALL)


def test_the_package_holds_what_artists_need_and_nothing_else(package: Path) -> None:
    assert {file.name for file in package.iterdir()} <= WANTED
    assert WANTED - {"tools"} <= {file.name for file in package.iterdir()}
    assert not list(package.rglob("*.safetensors"))


def test_the_package_is_small(package: Path) -> None:
    size = sum(file.stat().st_size for file in package.rglob("*") if file.is_file())
    print(f"The package has {size / 1e6:.2f} MB.")
    assert size < LARGEST


@pytest.mark.parametrize("pattern", FLAGGED)
def test_the_registrys_scan_finds_nothing(package: Path, pattern: str) -> None:
    hits = [
        f"{file.relative_to(package)}:{number}: {line.strip()[:120]}"
        for file in sorted(package.rglob("*"))
        if file.suffix in SCANNED
        for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), start=1)
        if re.search(pattern, line)
    ]
    assert not hits, "\n".join(hits)


def test_every_link_leads_somewhere(package: Path, documents: dict[Path, str]) -> None:
    """To a file of the package, a heading of it, or an address; one in the repository names a file that is there.

    ComfyUI's page resolves pictures of help pages against docs/, in whatever folder the page is.
    """
    manifest = (package / "pyproject.toml").read_text(encoding="utf-8")
    repository = re.search(r'^Repository = "(.+)"$', manifest, re.MULTILINE)[1]
    for file, text in documents.items():
        folder = package / "web" / "docs" if (package / "web") in file.parents else file.parent
        for target in LINK.findall(text):
            if target.startswith(repository):
                assert (REPOSITORY / target.removeprefix(f"{repository}/blob/main/")).is_file(), f"{file}: {target}"
            if re.match(r"https?://", target):
                continue
            path, _, heading = target.partition("#")
            there = (folder / path) if path else file
            assert there.exists(), f"{file.relative_to(package)}: {target}"
            if heading:
                assert heading in anchors(there.read_text(encoding="utf-8")), f"{file.relative_to(package)}: {target}"


def anchors(text: str) -> set[str]:
    """Return the anchors that GitHub gives to the headings of a document."""
    headings = re.findall(r"^#+ (.+)$", text, flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-") for heading in headings}


def test_every_command_that_documents_name_is_in_the_package(package: Path, documents: dict[Path, str]) -> None:
    """Except in what speaks of a clone of the repository."""
    for file, text in documents.items():
        for command in COMMAND.findall(CLONE_SECTION.sub("", text)):
            assert (package / command).is_file(), f"{file.relative_to(package)}: {command}"


def test_every_command_for_clones_is_in_the_repository(documents: dict[Path, str]) -> None:
    contributing = (REPOSITORY / "CONTRIBUTING.md").read_text(encoding="utf-8")
    for text in (*documents.values(), contributing):
        for command in COMMAND.findall(text):
            assert (REPOSITORY / command).is_file(), command


def test_notes_in_templates_name_commands_of_the_package(package: Path) -> None:
    for template in (package / "example_workflows").rglob("*.json"):
        for note in notes(template):
            for command in COMMAND.findall(note):
                assert (package / command).is_file(), f"{template.name}: {command}"


def notes(template: Path) -> Iterator[str]:
    for node in json.loads(template.read_text(encoding="utf-8"))["nodes"]:
        if node["type"] in ("Note", "MarkdownNote"):
            yield from node["widgets_values"]


def test_the_readme_is_short(package: Path) -> None:
    text = re.sub(r"https?://\S+", "", (package / "README.md").read_text(encoding="utf-8"))
    words = sum(bool(re.search(r"\w", word)) for word in text.split())
    assert words < 1150, words


def test_the_changelog_and_the_manifest_name_the_same_version(package: Path) -> None:
    version = re.search(r'^version = "(.+)"$', (package / "pyproject.toml").read_text(encoding="utf-8"), re.MULTILINE)
    latest = re.search(r"^## (\S+)", (package / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert version and latest and version.group(1) == latest.group(1)


def test_sampling_needs_no_python_package_that_comfyui_lacks(package: Path) -> None:
    assert "\ndependencies = []" in (package / "pyproject.toml").read_text(encoding="utf-8")
    assert not (package / "requirements.txt").exists()
