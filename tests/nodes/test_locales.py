"""The words of the nodes: English is in the schemas, every other language has a complete translation of them."""

import asyncio
import json
import re
from pathlib import Path
from typing import Any

import pytest
import sun_pack

LOCALES = Path(sun_pack.__file__).parent / "locales"
TRANSLATIONS = sorted(folder.name for folder in LOCALES.iterdir() if (folder / "nodeDefs.json").exists())
Words = dict[str, Any]


def schema_words() -> Words:
    """Collect the words of all nodes in the layout of nodeDefs.json."""

    async def nodes() -> list[Any]:
        return await (await sun_pack.comfy_entrypoint()).get_node_list()

    words = {}
    for node in asyncio.run(nodes()):
        info = node.GET_NODE_INFO_V1()
        words[info["name"]] = {
            "display_name": info["display_name"],
            "description": info["description"],
            "inputs": input_words(info["input"]),
            "outputs": {
                str(index): {"name": name, "tooltip": tooltip}
                for index, (name, tooltip) in enumerate(zip(info["output_name"], info["output_tooltips"], strict=True))
            },
        }
    return words


def input_words(sections: dict[str, dict[str, Any]]) -> Words:
    words: Words = {}
    for name, (_, options) in (sections.get("required", {}) | sections.get("optional", {})).items():
        words[name] = {"name": options.get("display_name") or name, "tooltip": options["tooltip"]}
        if options.get("control_after_generate"):
            words["control_after_generate"] = {"name": "control after generate"}  # a widget that the page adds
    return words


def read(language: str, file: str) -> Words:
    return json.loads((LOCALES / language / file).read_text(encoding="utf-8"))


def shape(words: Words) -> Any:
    """Return the same tree without its texts."""
    return {key: shape(value) if isinstance(value, dict) else None for key, value in words.items()}


def texts(words: Words) -> list[str]:
    return [text for value in words.values() for text in (texts(value) if isinstance(value, dict) else [value])]


def placeholders(text: str) -> set[str]:
    return set(re.findall(r"\{\w+\}", text))


def test_every_word_of_every_node_is_in_the_schema() -> None:
    assert all(text.strip() for text in texts(schema_words()))


def test_node_words_hold_no_sign_that_the_page_reads_as_syntax() -> None:
    for words in (schema_words(), *(read(language, "nodeDefs.json") for language in TRANSLATIONS)):
        for text in texts(words):
            assert not re.search(r"[{}@|]", text), text


@pytest.mark.parametrize("language", TRANSLATIONS)
def test_a_translation_has_every_word_of_every_node(language: str) -> None:
    assert shape(read(language, "nodeDefs.json")) == shape(schema_words())
    assert all(text.strip() for text in texts(read(language, "nodeDefs.json")))


@pytest.mark.parametrize("file", ["main.json", "commands.json", "settings.json"])
@pytest.mark.parametrize("language", TRANSLATIONS)
def test_a_translation_has_every_word_of_the_page(language: str, file: str) -> None:
    english, translated = read("en", file), read(language, file)
    for section, words in english.items():
        for key, text in words.items():
            assert translated[section][key].strip()
            assert placeholders(translated[section][key]) == placeholders(text)


@pytest.mark.parametrize("language", TRANSLATIONS)
def test_translated_sentences_are_in_that_language(language: str) -> None:
    """Only names such as Latent and Sigmas stay in English."""
    for text in texts(read(language, "nodeDefs.json")):
        assert re.search("[\u3040-\u30ff\u4e00-\u9fff]", text) or " " not in text, text
