"""Training data as users keep it: folders, metadata.jsonl, WebDataset shards, and what can be wrong with them."""

import io
import json
import tarfile
from pathlib import Path

import numpy as np
import pytest
import tiny_run
import torch
from PIL import ExifTags, Image
from sun_pack.sun_core.errors import SunError
from sun_pack.sun_core.training.bad_data import BadData
from sun_pack.sun_core.training.picture_encoder import PictureEncoder
from sun_pack.sun_core.training.pictures import Picture, read_pictures
from sun_pack.sun_core.training.tensor_folder import TensorFolder

BEFORE_DAMAGE = b"read before the damage"


def png(colour: str = "red", size: tuple[int, int] = (24, 16)) -> bytes:
    content = io.BytesIO()
    Image.new("RGB", size, colour).save(content, format="PNG")
    return content.getvalue()


def shard(path: Path, files: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w") as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


def folder_of_pictures(data: Path) -> None:
    for name in ("a", "b"):
        (data / f"{name}.png").write_bytes(png())
        (data / f"{name}.txt").write_text(f"caption {name}\n")


def metadata(data: Path) -> None:
    for name in ("a", "b"):
        (data / f"{name}.png").write_bytes(png())
    lines = [{"file_name": "a.png", "text": "caption a"}, {"file_name": "b.png", "text": "caption b"}]
    (data / "metadata.jsonl").write_text("\n".join(map(json.dumps, lines)))


def shards(data: Path) -> None:
    shard(data / "0.tar", {"a.png": png(), "a.txt": b"caption a"})
    shard(data / "1.tar", {"b.jpg": png(), "b.json": json.dumps({"caption": "caption b"}).encode()})


@pytest.mark.parametrize("make", [folder_of_pictures, metadata, shards])
def test_pictures_come_with_their_captions(make, tmp_path):
    make(tmp_path)
    pictures = list(read_pictures(tmp_path, BadData(stops=True)))
    assert [picture.caption for picture in pictures] == ["caption a", "caption b"]
    assert pictures[0].pixels(8, 8).shape == (1, 8, 8, 3)


def test_text_as_windows_editors_write_it_is_read(tmp_path):
    folder_of_pictures(tmp_path)
    (tmp_path / "a.txt").write_bytes("\ufeffcaption a\r\n".encode())
    assert next(iter(read_pictures(tmp_path, BadData(stops=True)))).caption == "caption a"
    lines = [{"file_name": "a.png", "text": "a line\u2028of two"}, {"file_name": "b.png", "text": "caption b"}]
    text = "\ufeff" + "\r\n".join(json.dumps(line, ensure_ascii=False) for line in lines)
    (tmp_path / "metadata.jsonl").write_bytes(text.encode())
    captions = [picture.caption for picture in read_pictures(tmp_path, BadData(stops=True))]
    assert captions == ["a line\u2028of two", "caption b"]


def pixels_of(picture):
    content = io.BytesIO()
    picture.save(content, format="PNG")
    return Picture("a.png", "a", content.getvalue()).pixels(8, 8)


def test_16_bit_grey_keeps_its_brightness():
    for value in (0, 20_000, 65_535):
        picture = Image.fromarray(np.full((8, 8), value, dtype=np.uint16))
        torch.testing.assert_close(pixels_of(picture), torch.full((1, 8, 8, 3), value / 65_535), rtol=0, atol=1 / 255)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "PA", "P"])
def test_transparent_places_become_white(mode):
    """The colour that is stored there is not seen in any viewer."""
    picture = Image.new("RGBA", (8, 8), (200, 0, 0, 0))
    picture.paste((0, 0, 0, 255), (0, 0, 8, 4))
    if mode == "P":
        picture = picture.quantize(4)
    elif mode == "LA":
        picture = picture.convert("LA")
    elif mode == "PA":
        picture = picture.convert("RGB").quantize(4)
        picture.info["transparency"] = picture.getpixel((0, 7))
    pixels = pixels_of(picture)
    assert pixels[0, 7, 4].tolist() == [1, 1, 1] and pixels[0, 1, 4].tolist() == [0, 0, 0]


def caption_without_picture(data: Path) -> None:
    (data / "lost.txt").write_text("a caption")


def picture_without_caption(data: Path) -> None:
    (data / "lost.png").write_bytes(png())


def damaged_picture(data: Path) -> None:
    (data / "lost.png").write_bytes(png(size=(200, 200))[:-40])
    (data / "lost.txt").write_text("a caption")


def picture_with_damaged_exif(data: Path) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation], exif[ExifTags.Base.ImageDescription] = 6, "a text"
    content = io.BytesIO()
    Image.new("RGB", (24, 16)).save(content, format="JPEG", exif=exif)
    damaged = content.getvalue().replace(b"\x01\x0e\x00\x02", b"\x01\x01\x00\x02")  # the text as a picture's height
    (data / "lost.jpg").write_bytes(damaged)
    (data / "lost.txt").write_text("a caption")


def text_named_as_a_picture(data: Path) -> None:
    (data / "lost.png").write_bytes(b"text")
    (data / "lost.txt").write_text("a caption")


def undecodable_caption(data: Path) -> None:
    (data / "lost.png").write_bytes(png())
    (data / "lost.txt").write_bytes(b"\xff\xfe\xfa")


def missing_picture(data: Path) -> None:
    metadata(data)
    with open(data / "metadata.jsonl", "a") as file:
        file.write('\n{"file_name": "lost.png", "text": "a caption"}')


def line_that_is_not_json(data: Path) -> None:
    metadata(data)
    with open(data / "metadata.jsonl", "a") as file:
        file.write('\n{"file_name": "lost.p')


def line_that_is_not_utf8(data: Path) -> None:
    metadata(data)
    with open(data / "metadata.jsonl", "ab") as file:
        file.write(b'\n{"file_name": "lost.png", "text": "\xff"}')


def line_without_caption(data: Path) -> None:
    metadata(data)
    with open(data / "metadata.jsonl", "a") as file:
        file.write('\n{"file_name": "lost.png"}')


def name_with_a_null_byte(data: Path) -> None:
    metadata(data)
    with open(data / "metadata.jsonl", "a") as file:
        file.write("\n" + json.dumps({"file_name": "lost\0.png", "text": "a caption"}))


def caption_with_half_a_character(data: Path) -> None:
    metadata(data)
    (data / "lost.png").write_bytes(png())
    with open(data / "metadata.jsonl", "a") as file:
        file.write("\n" + json.dumps({"file_name": "lost.png", "text": "a smile \ud83d"}))


def caption_of_600_kilobytes(data: Path) -> None:
    (data / "lost.png").write_bytes(png())
    (data / "lost.txt").write_text("a cat, " * 90_000)


def picture_outside_of_the_folder(data: Path) -> None:
    metadata(data)
    with open(data / "metadata.jsonl", "a") as file:
        file.write('\n{"file_name": "../lost.png", "text": "a caption"}')


def truncated_shard(data: Path) -> None:
    shards(data)
    whole = shard(data / "lost.tar", {"c.png": png(size=(64, 64)), "c.txt": b"caption c"}).read_bytes()
    (data / "lost.tar").write_bytes(whole[: len(png(size=(64, 64))) + 100])


def shard_with_a_damaged_header(data: Path) -> None:
    """Make a shard that Python's tarfile takes for ended at the damage, as if nothing were missing."""
    shards(data)
    files = {f"{i}{end}": content for i in range(30) for end, content in ((".png", png()), (".txt", BEFORE_DAMAGE))}
    content = bytearray(shard(data / "lost.tar", files).read_bytes())
    content[2048 + 148 : 2048 + 156] = b"damaged!"  # the checksum of the third file's header
    (data / "lost.tar").write_bytes(content)


def shard_that_is_not_an_archive(data: Path) -> None:
    shards(data)
    (data / "lost.tar").write_bytes(b"<html>not found</html>" * 100)


def sample_without_caption(data: Path) -> None:
    shards(data)
    shard(data / "lost.tar", {"c.png": png()})


def sample_without_picture(data: Path) -> None:
    shards(data)
    shard(data / "lost.tar", {"c.txt": b"a caption"})


BAD = [
    caption_without_picture, picture_without_caption, damaged_picture, picture_with_damaged_exif,
    text_named_as_a_picture, undecodable_caption, name_with_a_null_byte, caption_of_600_kilobytes,
    caption_with_half_a_character, missing_picture, line_that_is_not_json, line_that_is_not_utf8, line_without_caption,
    picture_outside_of_the_folder, truncated_shard, shard_with_a_damaged_header, shard_that_is_not_an_archive,
    sample_without_caption, sample_without_picture,
]  # fmt: skip


def encode(data: Path, bad: BadData) -> list[str]:
    """Encode what is usable with the VAE; returns its captions."""
    model, _, vae, _ = tiny_run.mini()
    encoder = PictureEncoder(vae, model.model, 16, 16, store={})
    captions = [example.caption for example in encoder.encode_all(read_pictures(data, bad), bad)]
    return [caption for caption in captions if caption != BEFORE_DAMAGE.decode()]


@pytest.mark.parametrize("spoil", BAD)
def test_bad_data_is_named_and_skipped_or_stopped_as_configured(spoil, tmp_path):
    folder_of_pictures(tmp_path)
    spoil(tmp_path)
    skipping = BadData(stops=False)
    captions = encode(tmp_path, skipping)
    assert captions == ["caption a", "caption b"]
    (sentence,) = skipping.found
    assert any(name in sentence for name in ("lost", "metadata.jsonl"))
    with pytest.raises(SunError, match="set on_bad_data to skip") as stopped:
        encode(tmp_path, BadData(stops=True))
    assert sentence in str(stopped.value)


@pytest.mark.parametrize("name", ["nowhere", "file.txt"])
def test_missing_data_is_named(name, tmp_path):
    (tmp_path / "file.txt").write_text("text")
    with pytest.raises(SunError, match=name):
        list(read_pictures(tmp_path / name, BadData(stops=False)))


def test_a_latent_is_computed_once_and_again_for_another_picture_or_size(tmp_path):
    model, _, vae, _ = tiny_run.mini()
    folder_of_pictures(tmp_path)
    store = TensorFolder(tmp_path / "cache")

    def encode(size):
        encoder = PictureEncoder(vae, model.model, size, size, store)
        return encoder.encode_all(read_pictures(tmp_path, BadData(True)), BadData(True))

    first = encode(16)
    assert len(store) == 1, "both pictures are the same"
    assert store[first[0].latent]["latent"].shape == (4, 2, 2)
    written = {path: path.stat().st_mtime_ns for path in (tmp_path / "cache").rglob("*.safetensors")}
    assert encode(16) == first
    assert {path: path.stat().st_mtime_ns for path in written} == written
    encode(32)
    (tmp_path / "b.png").write_bytes(png("blue"))
    encode(16)
    assert len(store) == 3


def test_a_damaged_cache_file_is_named(tmp_path):
    store = TensorFolder(tmp_path)
    store["latent-0"] = {"latent": torch.zeros(3)}
    (file,) = tmp_path.rglob("*.safetensors")
    file.write_bytes(file.read_bytes()[:-4])
    with pytest.raises(SunError, match="damaged"):
        store["latent-0"]
