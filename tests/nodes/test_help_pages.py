"""The help pages: one for each node in each language, that names all inputs and whose pictures are there."""

import asyncio
import re
from pathlib import Path
from typing import Any

import pytest
import sun_pack

DOCS = Path(sun_pack.__file__).parent / "web" / "docs"


def schemas() -> list[Any]:
    async def nodes() -> list[Any]:
        return await (await sun_pack.comfy_entrypoint()).get_node_list()

    return [node.GET_SCHEMA() for node in asyncio.run(nodes())]


def pages(node_id: str) -> list[Path]:
    """Where ComfyUI's page looks: the Chinese one under its locale, the English one for every other."""
    return [DOCS / f"{node_id}.md", DOCS / node_id / "zh.md"]


def pictures(page: Path) -> list[Path]:
    """ComfyUI's page takes all of them as relative to docs/, in whatever folder the help page is."""
    return [DOCS / name for name in re.findall(r"!\[[^]]*\]\(([^)]+)\)", page.read_text(encoding="utf-8"))]


@pytest.mark.parametrize("schema", schemas(), ids=lambda schema: schema.node_id)
def test_every_input_is_explained_in_both_languages(schema: Any) -> None:
    for page in pages(schema.node_id):
        text = page.read_text(encoding="utf-8")
        for one in schema.inputs:
            assert f"`{one.id}`" in text, f"{page}: {one.id}"


@pytest.mark.parametrize("schema", schemas(), ids=lambda schema: schema.node_id)
def test_a_page_says_when_to_use_the_node_and_what_mistakes_look_like(schema: Any) -> None:
    headings = ("When to use it", "Mistakes and what they look like"), ("什么时候用", "常见问题")
    for page, (when, mistakes) in zip(pages(schema.node_id), headings, strict=True):
        sections = re.split(r"^## ", page.read_text(encoding="utf-8"), flags=re.MULTILINE)
        said = {heading: text for heading, _, text in (section.partition("\n") for section in sections)}
        assert len(said[when].strip()) > 20, page
        assert "|---|---|---|" in said[mistakes], page


@pytest.mark.parametrize("schema", schemas(), ids=lambda schema: schema.node_id)
def test_both_languages_show_the_same_pictures_and_they_are_there(schema: Any) -> None:
    english, chinese = (pictures(page) for page in pages(schema.node_id))
    assert english == chinese
    assert english
    for picture in english:
        assert picture.is_file(), picture


def test_no_picture_is_left_over() -> None:
    shown = {picture for schema in schemas() for page in pages(schema.node_id) for picture in pictures(page)}
    assert set((DOCS / "images").iterdir()) == shown
