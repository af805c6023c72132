"""Turn saved workflows into 4-step ones with SUN, let their negative prompts count at CFG 1, or restore them.

Any Python from 3.10 on runs it, without ComfyUI.

    python3 tools/convert.py workflow.json ...       writes workflow_sun.json beside it
    python3 tools/convert.py pictures/               every .json and .png in a folder and its subfolders
    python3 tools/convert.py --negative workflow.json     writes workflow_negative.json beside it
    python3 tools/convert.py --restore workflow_sun.json
    python3 tools/convert.py --adapter my_adapter.safetensors --output converted/ workflow.json
    python3 tools/convert.py --object-info object_info.json workflow.json

--negative is for workflows that sample at CFG 1 to 2 or with a few-step model (LCM, Lightning, Hyper, Turbo, DMD2). It
puts Negative Prompt at CFG 1 before each sampler and sets CFG 1; the steps stay.

Samplers of other packs are recognized by the settings in the file. --object-info is what a running ComfyUI gives at
/object_info: with it, only the samplers that this ComfyUI knows are converted, to values that they offer.

Takes the page's format, the API's, and PNG pictures with a workflow in them, of which a copy with the converted
workflow is written (or the workflow alone, if --output ends in .json). No file is ever overwritten.

For each file one line says what was done. The indented lines below it say what changed, what stays as it is and why,
and which adapter to download. The exit status is 0 if every file could be read and written, even if there was nothing
to convert in it, and 1 otherwise.
"""

import argparse
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # this repository; no ComfyUI can come before it here

from conversion import finite_json, png
from conversion.edits import Plan
from conversion.graph import ConversionError
from conversion.models import Installed, adapter_by_name
from conversion.pack_samplers import Definitions
from conversion.plan import convert

SUFFIXES = (".json", ".png")
ENDINGS = {"speed_up": "_sun", "negative": "_negative", "restore": "_restored"}
"""What the name of a written file ends in, by what was done."""
LARGEST_JSON = 16 * 2**20
"""Bytes. Reading takes about 70 times as much memory."""
LARGEST_PICTURE = 512 * 2**20


def main(arguments: list[str] | None = None) -> int:
    options = parse(arguments)
    adapters = [adapter_by_name(options.adapter)] if options.adapter else []
    try:
        definitions = read_definitions(options.object_info) if options.object_info else None
    except (ConversionError, OSError) as error:
        say(f"{options.object_info}: {_reason(error)}", sys.stderr)
        return 1
    installed = Installed(adapters, options.adapter, definitions=definitions, is_known=False)
    failures = 0
    for source, target in jobs(options.paths, options.output, ENDINGS[options.action]):
        try:
            first, *more = convert_file(source, target, options.action, installed)
            say(f"{source}: {first}", sys.stdout)
            for line in more:
                say(f"    {line}", sys.stdout)
        except (ConversionError, OSError) as error:
            failures += 1
            say(f"{source}: not converted. {_reason(error)}", sys.stderr)
    return 1 if failures else 0


def _reason(error: Exception) -> str:
    return error.strerror or str(error) if isinstance(error, OSError) else str(error)


def read_definitions(path: Path) -> Definitions:
    """Read the node definitions of a ComfyUI from its /object_info."""
    definitions = _json(_decoded(_read(path, LARGEST_PICTURE)), "This is not what a ComfyUI gives at /object_info.")
    if not isinstance(definitions, dict):
        raise ConversionError("This is not what a ComfyUI gives at /object_info.")
    return lambda node_type: found if isinstance(found := definitions.get(node_type), dict) else None


def say(line: str, stream: TextIO) -> None:
    """Print a line that quotes file names and other people's workflows.

    Control characters, and letters that the stream cannot encode, are replaced.
    """
    shown = "".join(letter if letter.isprintable() else "?" for letter in line)
    encoding = stream.encoding or "utf-8"
    print(shown.encode(encoding, "backslashreplace").decode(encoding), file=stream)


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("paths", nargs="+", type=Path, metavar="PATH", help="workflow.json, picture.png, or a folder")
    actions = parser.add_mutually_exclusive_group()
    for name, text in (
        ("negative", "let the negative prompt count at CFG 1, without an adapter"),
        ("restore", "take out what was put in and bring the former settings back"),
    ):
        actions.add_argument(f"--{name}", dest="action", action="store_const", const=name, help=text)
    parser.set_defaults(action="speed_up")
    parser.add_argument("--adapter", metavar="NAME", help="the adapter file to use; the released one by default")
    parser.add_argument("--object-info", type=Path, metavar="FILE", help="node definitions of a ComfyUI")
    parser.add_argument("--output", type=Path, metavar="PATH", help="a folder, or the file for a single workflow")
    options = parser.parse_args(arguments)
    is_file = options.output is not None and options.output.suffix.lower() in SUFFIXES
    if is_file and (len(options.paths) > 1 or options.paths[0].is_dir()):
        parser.error("--output must be a folder if more than one file is converted.")
    if is_file and options.output.suffix.lower() == ".png" and options.paths[0].suffix.lower() != ".png":
        parser.error("a .png can only be written from a picture; choose an --output that ends in .json.")
    return options


def jobs(paths: list[Path], output: Path | None, ending: str) -> Iterator[tuple[Path, Path]]:
    """Find each file to read and the one to write. A file in a folder keeps its place in it."""
    for path in paths:
        for file in sorted(files_in(path)) if path.is_dir() else [path]:
            name = f"{file.stem}{ending}{file.suffix}"
            if output is None:
                yield file, file.with_name(name)
            elif output.suffix.lower() in SUFFIXES:
                yield file, output
            else:
                yield file, output / (file.relative_to(path).with_name(name) if path.is_dir() else name)


def files_in(folder: Path) -> Iterator[Path]:
    """Find the files that can hold a workflow. Reading from a named pipe might never end, so it does not count."""
    return (path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES and os.path.isfile(path))


def convert_file(source: Path, target: Path, action: str, installed: Installed) -> list[str]:
    """Convert one file and say what was done, in lines. Raises ConversionError or OSError if that is impossible."""
    is_picture = source.suffix.lower() == ".png"
    data = _read(source, LARGEST_PICTURE if is_picture else LARGEST_JSON)
    texts = png.read_texts(data) if is_picture else {"workflow": _decoded(data)}
    if not texts:
        raise ConversionError("There is no workflow in this picture.")
    converted: dict[str, tuple[dict[str, Any], Plan]] = {}
    unusable: dict[str, ConversionError] = {}
    for keyword, text in texts.items():
        try:
            converted[keyword] = _converted(action, text, installed)
        except ConversionError as error:
            unusable[keyword] = error
    if not converted:
        raise unusable.get("workflow") or unusable["prompt"]
    graph, plan = converted.get("workflow") or converted["prompt"]
    said = plan.detail.splitlines()
    said += [f"What it holds as its {keyword} stays as it is: {error}" for keyword, error in unusable.items()]
    if not any(each.edits for _, each in converted.values()):
        return [f"{plan.summary}.", *said]
    if is_picture and target.suffix.lower() == ".png":
        result = png.with_texts(data, {keyword: json.dumps(each) for keyword, (each, _) in converted.items()})
    else:
        result = (json.dumps(graph, indent=2, ensure_ascii=False) + "\n").encode("utf-8", "surrogatepass")
    _write(target, result)
    return [f"{plan.summary}. Written to {target}", *said]


def _read(path: Path, most: int) -> bytes:
    """Read a file of at most `most` bytes. Raises ConversionError for a larger one."""
    with path.open("rb") as file:
        data = file.read(most + 1)
    if len(data) > most:
        raise ConversionError(f"It has more than {most // 2**20} MB, so it cannot be a workflow.")
    return data


def _converted(action: str, text: str, installed: Installed) -> tuple[dict[str, Any], Plan]:
    try:
        return convert(action, _json(text, "This is not a ComfyUI workflow: it is not JSON."), None, installed)
    except RecursionError:
        raise ConversionError("Something in this workflow is nested too deeply.") from None


def _decoded(data: bytes) -> str:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise ConversionError("This is not a text file, so it cannot be a workflow.") from None


def _json(text: str, complaint: str) -> Any:
    try:
        return finite_json.parse(text)
    except ValueError:
        raise ConversionError(complaint) from None


def _write(target: Path, data: bytes) -> None:
    """Write a new file. An existing file is never replaced."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        raise ConversionError(
            f"{target.parent} is not a folder; choose an --output that is one, or a new file that ends in .json."
        ) from None
    try:
        with target.open("xb") as file:
            try:
                file.write(data)
            except OSError:
                target.unlink()
                raise
    except FileExistsError:
        raise ConversionError(f"{target} already exists; move it, or choose another --output.") from None


if __name__ == "__main__":
    sys.exit(main())
