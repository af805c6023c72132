"""The registry's package, as `comfy node publish` makes it."""

import shutil
from pathlib import Path

import pathspec
import pytest

REPOSITORY = Path(__file__).parents[2]


def shipped_files() -> list[Path]:
    """List the files of the package, relative to the repository: all but what .gitignore and .comfyignore name."""
    left_out = [".git"]
    for name in (".gitignore", ".comfyignore"):
        left_out += (REPOSITORY / name).read_text(encoding="utf-8").splitlines()
    files = pathspec.GitIgnoreSpec.from_lines(left_out).match_tree_files(REPOSITORY, negate=True)
    return sorted(Path(file) for file in files)


@pytest.fixture(scope="session")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that an installation from the registry has."""
    folder = tmp_path_factory.mktemp("registry") / "sun-for-comfyui"
    for file in shipped_files():
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(REPOSITORY / file, folder / file)
    return folder


@pytest.fixture(scope="session")
def documents(package: Path) -> dict[Path, str]:
    """The Markdown files of the package with their texts."""
    return {file: file.read_text(encoding="utf-8") for file in package.rglob("*.md")}
