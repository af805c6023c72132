import json
import re
import struct
import sys
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from sun_pack.sun_core.adapter import load_adapter
from sun_pack.sun_core.adapter_file import read_layout
from sun_pack.sun_core.errors import SunError
from sun_pack.sun_core.model_header import read_model_header
from sun_pack.sun_core.safetensors_file import CutShortError, read_header

PACK = Path(__file__).parents[2]
SHIPPED = ("nodes", "sun_core", "conversion", "tools")


@pytest.fixture
def write(tmp_path):
    """`write(header, body)` makes a file of a header (JSON, or bytes) and the bytes behind it."""

    def write(header, body=b""):
        text = header if isinstance(header, bytes) else json.dumps(header).encode()
        path = tmp_path / "file.safetensors"
        path.write_bytes(struct.pack("<Q", len(text)) + text + body)
        return path

    return write


def entry(start, end, shape=(), dtype="F32"):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": [start, end]}


def test_header_says_what_the_library_says(tmp_path):
    path = tmp_path / "file.safetensors"
    tensors = {"a": torch.zeros(2, 3), "b": torch.zeros(5, dtype=torch.float16), "none": torch.zeros(0, 4)}
    save_file(tensors, path, metadata={"family": "mini"})
    header = read_header(path)
    with safe_open(path, "pt") as file:
        said = {key: file.get_slice(key) for key in file.keys()}  # noqa: SIM118 (not a mapping)
        assert header.metadata == file.metadata()
        assert {key: (tensor.dtype, list(tensor.shape)) for key, tensor in header.tensors.items()} == {
            key: (part.get_dtype(), part.get_shape()) for key, part in said.items()
        }


@pytest.mark.parametrize(
    ("header", "body"),
    [
        (b"{", b""),
        (b"\xff{}", b""),
        ('{"a": 1}'.encode("utf-16"), b""),
        (b"[" * 100_000, b""),
        (b"[]", b""),
        ({"a": 3}, b""),
        ({"a": entry(0, 4)}, b"12345"),
        ({"a": entry(1, 5)}, b"12345"),
        ({"a": entry(0, 4), "b": entry(2, 6)}, b"123456"),
        ({"a": entry(4, 0)}, b""),
        ({"a": entry(-4, 0)}, b""),
        ({"a": entry(0, 4, [-1])}, b"1234"),
        ({"a": entry(0, 4, [1.5])}, b"1234"),
        ({"a": entry(0, 4, [1] * 10_000)}, b"1234"),
        ({"a": entry(0, 4, dtype="\n" * 8)}, b"1234"),
        ({"__metadata__": {"steps": 4}}, b""),
        ({"__metadata__": []}, b""),
    ],
)
def test_malformed_header_is_refused(write, header, body):
    with pytest.raises(SafetensorError):
        read_header(write(header, body))


@pytest.mark.parametrize(("header", "body"), [({"a": entry(0, 4)}, b"123"), ({"a": entry(0, 2**60)}, b"")])
def test_file_that_ends_too_early_is_cut_short(write, header, body):
    with pytest.raises(CutShortError):
        read_header(write(header, body))


def test_header_that_would_take_gigabytes_to_parse_is_not_read(write):
    with pytest.raises(SunError, match=r"an unreadable header \(it has 20 MB, and 16 MB are the most\)"):
        read_layout(write(b"{" + b" " * (20 * 2**20)))


@pytest.mark.skipif(sys.platform != "linux", reason="/proc is Linux's")
@pytest.mark.parametrize("read", [load_adapter, read_layout, read_model_header, load_file])
def test_file_is_at_no_moment_mapped_into_memory(read, reference_folder):
    path = reference_folder / "sun_adapter_fp16.safetensors"
    mapped = {}  # whether it was mapped, by line of code

    def look(frame, event, argument):
        line = frame.f_code.co_filename, frame.f_lineno, event
        if "return" in event and re.search("sun_core|safetensors", line[0]) and line not in mapped:
            mapped[line] = path.name in Path("/proc/self/maps").read_text()

    sys.setprofile(look)
    try:
        read(path)
    finally:
        sys.setprofile(None)
    assert mapped and any(mapped.values()) == (read is load_file)  # which shows that the test can tell


def test_nothing_that_ships_reads_through_a_mapping():
    files = [file for folder in SHIPPED for file in (PACK / folder).rglob("*.py")]
    assert len(files) > 60
    assert [file.name for file in files if re.search(r"\b(safe_open|load_file)\(|mmap\s*=", file.read_text())] == []


@pytest.mark.parametrize("becomes", [b"", b"\0" * 1000, "longer"])
def test_adapter_that_changes_while_it_is_read_is_refused(becomes, tmp_path, reference_folder, monkeypatch):
    content = (reference_folder / "sun_adapter_fp16.safetensors").read_bytes()
    path = tmp_path / "adapter.safetensors"
    path.write_bytes(content)
    read_bytes = Path.read_bytes

    def overwritten_meanwhile(self):
        path.write_bytes(content + b"more" if becomes == "longer" else becomes)
        return read_bytes(self)

    monkeypatch.setattr(Path, "read_bytes", overwritten_meanwhile)
    with pytest.raises(SunError, match=r"adapter\.safetensors changed while it was being read; queue again"):
        load_adapter(path)
