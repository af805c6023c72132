"""A cache of tensors on disk, under names."""

import hashlib
from collections.abc import Iterator, MutableMapping
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, nn

from ..errors import SunError
from ..whole_file import whole_file

Tensors = dict[str, Tensor]


class TensorFolder(MutableMapping[str, Tensors]):
    """Keeps each entry in a safetensors file, which is whole at any moment; several processes may share the folder."""

    def __init__(self, folder: Path):
        self.folder = folder

    def _file(self, key: str) -> Path:
        return self.folder / key[-2:] / f"{key}.safetensors"

    def __contains__(self, key: object) -> bool:
        return self._file(str(key)).exists()

    def __getitem__(self, key: str) -> Tensors:
        file = self._file(key)
        try:
            return load(file.read_bytes())  # not through mmap: another process may replace the file
        except FileNotFoundError:
            raise KeyError(key) from None
        except SafetensorError as error:
            raise SunError(
                "The cached {file} is damaged ({why}); delete it, and start again to make it anew.",
                file=file,
                why=error,
            ) from error

    def __setitem__(self, key: str, tensors: Tensors) -> None:
        with whole_file(self._file(key)) as file:
            file.write(save({name: tensor.contiguous() for name, tensor in tensors.items()}))

    def __delitem__(self, key: str) -> None:
        self._file(key).unlink()

    def __iter__(self) -> Iterator[str]:
        return (file.stem for file in self.folder.glob("*/*.safetensors"))

    def __len__(self) -> int:
        return sum(1 for _ in self)


def content_hash(module: nn.Module) -> str:
    """Hash a network's weights: names, shapes and some of the values of each (16 hex digits)."""
    digest = hashlib.sha256()
    for key, tensor in sorted(module.state_dict().items()):
        flat = tensor.detach().flatten()
        some = flat[:: max(1, flat.numel() // 64)][:64].float().cpu()
        digest.update(f"{key} {tuple(tensor.shape)} {some.numpy().tobytes().hex()}".encode())
    return digest.hexdigest()[:16]
