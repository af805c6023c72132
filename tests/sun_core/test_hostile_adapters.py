"""Adapter files that lie: each is refused in one sentence, or is a whole adapter, and nothing is executed."""

import json
import pickle
import random
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load, save
from sun_pack.sun_core.adapter import load_adapter
from sun_pack.sun_core.adapter_file import AdapterLayout, read_layout
from sun_pack.sun_core.errors import SunError
from sun_pack.sun_core.model_header import read_model_header

from ..conversion.hostile import JUNK, TIMES, assert_is_one_sentence, damage

try:
    import resource
except ImportError:  # on Windows
    resource = None

SEEDS, CASES = 4, 500
MOST_MEMORY = 400 * 2**20
DTYPES = ["F16", "BF16", "F32", "F64", "I8", "U8", "BOOL", "F8_E4M3", "F4", "f16", "", "\n", "F16\0", "X" * 1000]
NUMBERS = [-1, 0, 1, 2**31, 2**62, 2**63, 2**64, 10**4000, 1.5, float("nan"), True, None, "4", [4]]
KEYS = ["0.to_k_neg.weight", "2.to_k_neg.weight", "01.to_k_neg.weight", "9999.to_v_neg.weight", "", "\n\x1b[31m", "灯",
        "\ud800", "1.to_k_neg.weight\n", "__metadata__", "x" * 10_000, "1.to_k_neg.weight.lora_up"]  # fmt: skip

Header = dict[str, Any]


class Bomb:
    """Unpickled, it would make a file."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Callable, tuple[Path]]:
        return Path.touch, (self.mark,)


def small_adapter() -> bytes:
    """A whole adapter of three layers, in 3 KB."""
    torch.manual_seed(0)
    state = {}
    for number, hidden in ((1, 4), (3, 4), (5, 8)):
        for branch in ("neg", "extra_pos"):
            state |= {f"{number}.to_{kv}_{branch}.weight": torch.randn(hidden, 6).half() for kv in "kv"}
            state |= {f"{number}.to_k_{branch}_{scale}": torch.randn(hidden).half() for scale in ("alpha", "beta")}
    return save(state, {"family": "mini", "steps": "4"})


WHOLE = small_adapter()


def split(content: bytes) -> tuple[Header, bytes]:
    length = int.from_bytes(content[:8], "little")
    return json.loads(content[8 : 8 + length]), content[8 + length :]


def joined(header: bytes | Header, body: bytes, length: int | None = None) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return (len(text) if length is None else length).to_bytes(8, "little") + text + body


def flipped_bits(rng: random.Random, mark: Path) -> bytes:
    spoilt = bytearray(WHOLE)
    end = rng.choice((8, 200, len(spoilt)))
    for _ in range(rng.choice((1, 3, 50))):
        spoilt[rng.randrange(end)] ^= 1 << rng.randrange(8)
    return bytes(spoilt)


def another_length(rng: random.Random, mark: Path) -> bytes:
    kept = WHOLE[: rng.randrange(len(WHOLE))]
    return rng.choice((kept, kept + rng.randbytes(100), WHOLE + rng.randbytes(rng.randrange(1, 100)), kept + WHOLE))


def lying_entry(rng: random.Random, mark: Path) -> bytes:
    header, body = split(WHOLE)
    for _ in range(rng.choice((1, 1, 5))):
        entry = header[rng.choice([key for key in header if key != "__metadata__"])]
        kind = rng.choice(("dtype", "shape", "data_offsets"))
        if kind == "dtype":
            entry["dtype"] = rng.choice(DTYPES)
        elif kind == "shape":
            entry["shape"] = rng.choice((entry["shape"][::-1], [rng.choice(NUMBERS) for _ in range(rng.randrange(4))]))
        else:
            entry["data_offsets"] = [rng.choice((*NUMBERS, *entry["data_offsets"])) for _ in range(2)]
    return joined(header, body)


def lying_keys(rng: random.Random, mark: Path) -> bytes:
    header, body = split(WHOLE)
    key = rng.choice(list(header))
    value = header.pop(key)
    if rng.random() < 0.7:
        header[rng.choice(KEYS)] = value
    if rng.random() < 0.3:
        text = json.dumps(header)
        return joined((text[:-1] + "," + text[1:]).encode(), body)  # every key twice
    return joined(header, body)


def damaged_header(rng: random.Random, mark: Path) -> bytes:
    header, body = split(WHOLE)
    for _ in range(rng.choice((1, 3, 20))):
        damage(header, rng)
    return joined(header, body)


def lying_length(rng: random.Random, mark: Path) -> bytes:
    header, body = split(WHOLE)
    length = len(json.dumps(header))
    return joined(header, body, rng.choice((0, 1, length - 1, length + 1, length + len(body), 2**24, 2**63, 2**64 - 1)))


def deep_or_wide_header(rng: random.Random, mark: Path) -> bytes:
    depth = rng.choice((10, 900, 100_000))
    deep = rng.choice((b"[" * depth, b'{"a":' * depth, b"[" * depth + b"]" * depth))
    wide = (b'{"a": ' + b"9" * 5000 + b"}", b'{"a": [' + b"[]," * 10_000 + b"0]}", b"{" + b" " * 100_000, b'{"a": NaN}')
    return joined(rng.choice((deep, *wide)), b"")


def lying_metadata(rng: random.Random, mark: Path) -> bytes:
    header, body = split(WHOLE)
    value = rng.choice((*JUNK, {"steps": 4}, {"family": "x" * 10**6}, {"a": {"b": "c"}}, {"\n": "\x1b[2J"}))
    return joined({**header, "__metadata__": value}, body)


def huge_layout(rng: random.Random, mark: Path) -> bytes:
    """Shapes that fit together and offsets that agree with them, for a file that would have terabytes."""
    header, end = {}, 0
    hidden, context = rng.choice((2**20, 2**31, 2**40)), rng.choice((1, 768, 2**20))
    for name, shape in (
        *((f"to_{kv}_neg.weight", [hidden, context]) for kv in "kv"),
        *((f"to_k_neg_{scale}", [hidden]) for scale in ("alpha", "beta")),
    ):
        size = 2 * hidden * (context if len(shape) == 2 else 1)
        start, end = (0, 0) if rng.random() < 0.3 else (end, end + size)
        header[f"1.{name}"] = {"dtype": "F16", "shape": shape, "data_offsets": [start, end]}
    return joined(header, b"\0" * 64)


def no_numbers(rng: random.Random, mark: Path) -> bytes:
    state = load(WHOLE)
    state[rng.choice(list(state))].view(-1)[rng.randrange(4)] = rng.choice((float("nan"), float("inf"), -float("inf")))
    dtype = rng.choice((torch.float16, torch.bfloat16, torch.float32, torch.float64))
    return save({key: value.to(dtype) for key, value in state.items()})


def another_format(rng: random.Random, mark: Path) -> bytes:
    magic = rng.choice((b"PK\x03\x04", b"GGUF", b"<html>", b"\x80\x04", b"", b"{", b"\x93NUMPY", b"\x1f\x8b"))
    return rng.choice((pickle.dumps(Bomb(mark)), magic + rng.randbytes(rng.randrange(200))))


KINDS = [
    flipped_bits, another_length, lying_entry, lying_keys, damaged_header, lying_length, deep_or_wide_header,
    lying_metadata, huge_layout, no_numbers, another_format,
]  # fmt: skip


def most_memory() -> int:
    """The most bytes that this process has had in memory; 0 on Windows."""
    if resource is None:
        return 0
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


@pytest.fixture
def memory_stays() -> Iterator[None]:
    """The most memory that this process has had may hardly grow."""
    before = most_memory()
    yield
    assert most_memory() - before < MOST_MEMORY


@pytest.mark.usefixtures("memory_stays")
@pytest.mark.parametrize("seed", range(SEEDS))
def test_hostile_file_is_refused_in_one_sentence_or_is_a_whole_adapter(seed: int, tmp_path: Path) -> None:
    rng, path, mark = random.Random(seed), tmp_path / "file.safetensors", tmp_path / "executed"
    whole = 0
    for _ in range(CASES * TIMES):
        content = rng.choice(KINDS)(rng, mark)
        path.write_bytes(content)
        whole += outcome(path)
        read_model_header(path)
    assert 0.02 < whole / (CASES * TIMES) < 0.5
    assert not mark.exists()


def outcome(path: Path) -> bool:
    """Whether the file is a whole adapter; its header alone must tell, but for its values and details of its JSON."""
    layout = layout_or_sentence(path)
    try:
        adapter = load_adapter(path)
    except SunError as error:
        assert_is_one_sentence(str(error))
        found_later = ("has values that are not numbers", "has a damaged header")
        assert layout == str(error) or any(words in str(error) for words in found_later)
        return False
    assert adapter.layout == layout
    assert all(bool(torch.isfinite(weight).all()) for weight in adapter.state_dict().values())
    return True


def layout_or_sentence(path: Path) -> AdapterLayout | str:
    try:
        return read_layout(path)[0]
    except SunError as error:
        return str(error)
