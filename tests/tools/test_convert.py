"""tools/convert.py as it is run: in a process of its own, with nothing but the standard library."""

import json
import os
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

REPOSITORY = Path(__file__).parent.parent.parent
SCRIPT = REPOSITORY / "tools" / "convert.py"
CORPUS = REPOSITORY / "tests" / "conversion" / "corpus"


def convert(*arguments, folder):
    """Run the command isolated (-I) and without site packages (-S), as a bare python3 does."""
    command = [sys.executable, "-I", "-S", str(SCRIPT), *map(str, arguments)]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300)


def files_said(done):
    """The lines of a run that are about a file, without the indented ones."""
    return [line for line in done.stdout.splitlines() if not line.startswith("    ")]


def corpus(name):
    return json.loads((CORPUS / f"{name}.json").read_text(encoding="utf-8"))


@pytest.fixture
def workflow(tmp_path):
    path = tmp_path / "graph.json"
    path.write_text(json.dumps(corpus("text_to_image")), encoding="utf-8")
    return path


def deep(depth):
    """Nest something in a workflow as deeply."""
    graph = corpus("text_to_image")
    graph["extra"] = {"deep": "?"}
    return json.dumps(graph).replace('"?"', "[" * depth + "]" * depth)


def picture(path, texts):
    info = PngInfo()
    for keyword, value in texts.items():
        info.add_text(keyword, value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))
    Image.new("RGB", (8, 8), (200, 30, 30)).save(path, pnginfo=info)
    return path


def test_workflow_is_converted_and_restored(workflow, tmp_path):
    done = convert("graph.json", folder=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    first, *more = done.stdout.splitlines()
    assert first == "graph.json: KSampler (#5) now needs 4 steps and no CFG pass. Written to graph_sun.json"
    assert more[0].startswith("    It needs the adapter sun_adapter_sdv15_4step_addpos.safetensors in models/sun; if")
    assert more[1].startswith("    KSampler (#5): steps 25 -> 4") and len(more) == 2
    assert json.loads((tmp_path / "graph_sun.json").read_text()) == corpus("text_to_image.expected")
    assert convert("--restore", "graph_sun.json", "--output", "back.json", folder=tmp_path).returncode == 0
    back = json.loads((tmp_path / "back.json").read_text())
    assert [node["widgets_values"] for node in back["nodes"]] == [
        node["widgets_values"] for node in corpus("text_to_image")["nodes"]
    ]


def test_negative_prompt_is_let_count_and_restored(tmp_path):
    (tmp_path / "lightning.json").write_text(json.dumps(corpus("lightning_lora_on_sdxl")), encoding="utf-8")
    done = convert("lightning.json", folder=tmp_path)
    assert "But “Let the negative prompt count” works here" in done.stdout
    done = convert("--negative", "lightning.json", folder=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    first, *more = done.stdout.splitlines()
    said = "The negative prompt of KSampler (#6) now counts at CFG 1"
    assert first == f"lightning.json: {said}. Written to lightning_negative.json"
    assert more[0] == "    KSampler (#6): cfg 2 -> 1."
    converted = json.loads((tmp_path / "lightning_negative.json").read_text())
    assert converted == corpus("negative/lightning_lora_on_sdxl")
    assert convert("--restore", "lightning_negative.json", "--output", "back.json", folder=tmp_path).returncode == 0
    back = json.loads((tmp_path / "back.json").read_text())
    assert [node["widgets_values"] for node in back["nodes"]] == [
        node["widgets_values"] for node in corpus("lightning_lora_on_sdxl")["nodes"]
    ]
    assert convert("--negative", "--restore", "lightning.json", folder=tmp_path).returncode == 2


def test_nothing_is_ever_overwritten(workflow, tmp_path):
    before = workflow.read_bytes()
    (tmp_path / "graph_sun.json").write_text("mine")
    done = convert("graph.json", folder=tmp_path)
    assert done.returncode == 1 and "already exists" in done.stderr
    assert convert("graph.json", "--output", "graph.json", folder=tmp_path).returncode == 1
    assert (tmp_path / "graph_sun.json").read_text() == "mine" and workflow.read_bytes() == before


def test_folder_is_converted_file_by_file(workflow, tmp_path):
    (tmp_path / "deep").mkdir()
    for name in ("api_text_to_image", "flux"):
        (tmp_path / "deep" / f"{name}.json").write_text(json.dumps(corpus(name)))
    (tmp_path / "notes.txt").write_text("no workflow")
    (tmp_path / "broken.json").write_text("{")
    done = convert(".", "--output", "out", folder=tmp_path)
    assert done.returncode == 1
    assert len(files_said(done)) == 3 and ") stays as it is: its model is Flux" in done.stdout
    assert done.stderr == "broken.json: not converted. This is not a ComfyUI workflow: it is not JSON.\n"
    written = sorted(str(path.relative_to(tmp_path / "out")) for path in (tmp_path / "out").rglob("*.json"))
    assert written == ["deep/api_text_to_image_sun.json", "graph_sun.json"]
    converted = json.loads((tmp_path / "out" / "deep" / "api_text_to_image_sun.json").read_text())
    assert converted == corpus("api_text_to_image.expected")


def test_workflow_that_is_left_alone_is_not_a_failure(tmp_path):
    (tmp_path / "flux.json").write_text(json.dumps(corpus("flux")))
    done = convert("flux.json", folder=tmp_path)
    assert done.returncode == 0 and "Flux" in done.stdout
    assert [path.name for path in tmp_path.iterdir()] == ["flux.json"]


def test_both_workflows_in_a_picture_are_converted_and_the_picture_stays(tmp_path):
    texts = {"workflow": corpus("text_to_image"), "prompt": corpus("api_text_to_image")}
    source = picture(tmp_path / "picture.png", texts)
    assert convert("picture.png", folder=tmp_path).returncode == 0
    with Image.open(source) as before, Image.open(tmp_path / "picture_sun.png") as after:
        assert before.tobytes() == after.tobytes()
        assert json.loads(after.text["workflow"]) == corpus("text_to_image.expected")
        assert json.loads(after.text["prompt"]) == corpus("api_text_to_image.expected")


@pytest.mark.parametrize("title", ["Grüße", "灯塔"])
def test_titles_in_any_language_survive(tmp_path, title):
    """Pillow writes iTXt if Latin-1 is not enough."""
    graph = corpus("text_to_image")
    graph["nodes"][0]["title"] = title
    picture(tmp_path / "picture.png", {"workflow": graph})
    assert convert("picture.png", folder=tmp_path).returncode == 0
    with Image.open(tmp_path / "picture_sun.png") as after:
        assert json.loads(after.text["workflow"])["nodes"][0]["title"] == title


def test_picture_gives_a_workflow_file_if_the_output_is_one(tmp_path):
    picture(tmp_path / "picture.png", {"workflow": corpus("text_to_image")})
    assert convert("picture.png", "--output", "graph.json", folder=tmp_path).returncode == 0
    assert json.loads((tmp_path / "graph.json").read_text()) == corpus("text_to_image.expected")


@pytest.mark.parametrize(
    ("unusable", "text"), [("workflow", "{}"), ("prompt", "null"), ("prompt", "a cat"), ("workflow", deep(600))]
)
def test_malformed_text_stays_while_the_other_one_is_converted(tmp_path, unusable, text):
    texts = {"workflow": corpus("text_to_image"), "prompt": corpus("api_text_to_image"), unusable: text}
    picture(tmp_path / "picture.png", texts)
    done = convert("picture.png", folder=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert len(files_said(done)) == 1 and f"    What it holds as its {unusable} stays as it is" in done.stdout
    good = {"workflow": "text_to_image", "prompt": "api_text_to_image"}
    del good[unusable]
    with Image.open(tmp_path / "picture_sun.png") as after:
        assert after.text[unusable] == text
        assert {key: json.loads(after.text[key]) for key in good} == {
            key: corpus(f"{name}.expected") for key, name in good.items()
        }


def test_picture_without_a_workflow_is_refused(tmp_path):
    picture(tmp_path / "picture.png", {"workflow": "{}", "prompt": "a cat"})
    done = convert("picture.png", folder=tmp_path)
    assert done.returncode == 1 and done.stdout == ""
    assert done.stderr == "picture.png: not converted. This is not a ComfyUI workflow: it has no list of nodes.\n"


def test_workflow_file_is_never_written_as_a_picture(workflow, tmp_path):
    done = convert("graph.json", "--output", "graph.png", folder=tmp_path)
    assert done.returncode != 0 and done.stdout == "" and "ends in .json" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["graph.json"]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="Windows has no named pipes in folders")
def test_pipe_or_folder_with_the_name_of_a_workflow_is_ignored(workflow, tmp_path):
    os.mkfifo(tmp_path / "a.json")
    (tmp_path / "b.json").mkdir()
    done = convert(".", folder=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert len(files_said(done)) == 1 and (tmp_path / "graph_sun.json").exists()


@pytest.mark.parametrize("output", ["notes", "notes/deep", "notes/new.json"])
def test_output_inside_a_file_is_explained(workflow, tmp_path, output):
    (tmp_path / "notes").write_text("mine")
    done = convert("graph.json", "--output", output, folder=tmp_path)
    assert done.returncode == 1 and "is not a folder; choose an --output that is one" in done.stderr
    assert len(done.stderr.splitlines()) == 1 and (tmp_path / "notes").read_text() == "mine"


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999"])
def test_number_that_no_browser_reads_is_written_as_null(tmp_path, number):
    text = json.dumps({**corpus("api_text_to_image"), "9": {"class_type": "Note", "inputs": {}, "is_changed": ["?"]}})
    text = text.replace('"?"', number)
    (tmp_path / "graph.json").write_text(text)
    picture(tmp_path / "picture.png", {"prompt": text})
    assert convert("graph.json", "picture.png", folder=tmp_path).returncode == 0
    with Image.open(tmp_path / "picture_sun.png") as after:
        written = [(tmp_path / "graph_sun.json").read_text(), after.text["prompt"]]
    for graph in written:
        assert json.loads(graph, parse_constant=pytest.fail)["9"]["is_changed"] == [None]


def test_adapter_can_be_named(workflow, tmp_path):
    convert("graph.json", "--adapter", "mine.safetensors", folder=tmp_path)
    converted = json.loads((tmp_path / "graph_sun.json").read_text())
    assert converted["nodes"][-1]["widgets_values"][0] == "mine.safetensors"


def test_released_adapter_is_not_put_on_sdxl_by_its_name(tmp_path):
    (tmp_path / "graph.json").write_text(json.dumps(corpus("sdxl")))
    done = convert("graph.json", "--adapter", "sun_adapter_sdv15_4step_addpos.safetensors", folder=tmp_path)
    assert "no adapter for SDXL is installed" in done.stdout and not (tmp_path / "graph_sun.json").exists()


def test_samplers_of_packs_follow_the_node_definitions_of_a_comfyui(tmp_path):
    graph = corpus("api_text_to_image")
    (number,) = (key for key, node in graph.items() if node["class_type"] == "KSampler")
    graph[number]["class_type"] = "KSampler (Efficient)"
    (tmp_path / "graph.json").write_text(json.dumps(graph))
    assert convert("graph.json", folder=tmp_path).returncode == 0
    assert json.loads((tmp_path / "graph_sun.json").read_text())[number]["inputs"]["steps"] == 4
    (tmp_path / "info.json").write_text("{}")
    done = convert("graph.json", "--object-info", "info.json", folder=tmp_path)
    assert "its pack is not installed here" in done.stdout
    for text, said in (("[]", "/object_info"), ("{", "/object_info"), (None, "No such file")):
        (tmp_path / "info.json").unlink() if text is None else (tmp_path / "info.json").write_text(text)
        done = convert("graph.json", "--object-info", "info.json", folder=tmp_path)
        assert done.returncode == 1 and done.stdout == "" and said in done.stderr


def test_bytes_after_the_picture_stay(tmp_path):
    source = picture(tmp_path / "picture.png", {"workflow": corpus("text_to_image")})
    source.write_bytes(source.read_bytes() + b"of another program")
    assert convert("picture.png", folder=tmp_path).returncode == 0
    assert (tmp_path / "picture_sun.png").read_bytes().endswith(b"IEND\xaeB`\x82of another program")


def test_hostile_words_are_printed_without_control_characters_or_lines_of_their_own(tmp_path):
    graph = corpus("flux")
    unet = next(node for node in graph["nodes"] if node["type"] == "UNETLoader")
    unet["widgets_values"][0] = "\x1b[2J\ud800\n.safetensors"
    next(node for node in graph["nodes"] if node["type"] == "ModelSamplingFlux")["mode"] = 4
    (tmp_path / "graph.json").write_text(json.dumps(graph))
    done = convert("graph.json", folder=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    first, reason = done.stdout.splitlines()
    assert first == "graph.json: SUN left this workflow as it is." and "\x1b" not in done.stdout
    assert reason.startswith("    KSampler") and "[2J.safetensors" in reason


def bomb():
    text = zlib.compress(b"x" * 100 * 2**20)
    data = b"workflow\0\0" + text
    chunk = struct.pack(">I", len(data)) + b"zTXt" + data + struct.pack(">I", zlib.crc32(b"zTXt" + data))
    return b"\x89PNG\r\n\x1a\n" + chunk


def large_text():
    data = b"workflow\0" + b" " * 16 * 2**20
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", len(data)) + b"tEXt" + data + b"\0" * 4


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.json", b"", "not JSON"),
        ("a.json", b"\xff\xfe\x00", "not a text file"),
        ("a.json", b"[" * 200_000, "not JSON"),
        ("a.json", b"[]", "not a ComfyUI workflow"),
        ("a.json", deep(600).encode(), "nested too deeply"),
        ("a.png", b"GIF89a", "not a PNG"),
        ("a.png", b"\x89PNG\r\n\x1a\n\xff\xff\xff\xffIHDR", "cut short"),
        ("a.png", b"\x89PNG\r\n\x1a\n", "no workflow in this picture"),
        ("a.png", bomb(), "larger than any workflow"),
        ("a.png", large_text(), "larger than any workflow"),
        ("a.json", b" " * (16 * 2**20 + 1), "more than 16 MB"),
    ],
)
def test_unreadable_file_is_reported_in_one_line(tmp_path, name, content, said):
    (tmp_path / name).write_bytes(content)
    done = convert(name, folder=tmp_path)
    assert done.returncode == 1 and done.stdout == "" and said in done.stderr
    assert len(done.stderr.splitlines()) == 1
