"""Weight files: find them, list their tensors, read and write them one tensor at a time.

Files are mapped into memory, and pages are given back as soon as a tensor was copied: mapped pages count as
resident, and a 4 GB file beside a 4 GB model would be 8 GB otherwise.
"""

from __future__ import annotations

import ctypes
import json
import mmap
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from janus_core.errors import CheckpointError, WeightsNotFound

WeightFormat = Literal["safetensors", "bin"]

_STEMS = {"safetensors": "model", "bin": "pytorch_model"}
_SAFETENSORS_DTYPES = {
    torch.float32: "F32",
    torch.bfloat16: "BF16",
    torch.float16: "F16",
    torch.float64: "F64",
    torch.int64: "I64",
}


def find_weight_files(folder: Path) -> list[Path]:
    """The weight files of a checkpoint, safetensors before .bin, an index before a single file.

    Raises WeightsNotFound: none, or an index that names absent files (a download that broke off).
    """
    for kind, stem in _STEMS.items():
        index, single = folder / f"{stem}.{kind}.index.json", folder / f"{stem}.{kind}"
        if index.is_file():
            try:
                names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
            except (ValueError, KeyError, AttributeError) as error:
                raise WeightsNotFound(f"{index} is no index of weights: {error}") from error
            absent = [name for name in names if not (folder / name).is_file()]
            if absent:
                raise WeightsNotFound(f"{index} names files that are not there: {', '.join(absent)}")
            return [folder / name for name in names]
        if single.is_file():
            return [single]
    raise WeightsNotFound(f"{folder} has neither model.safetensors nor pytorch_model.bin, nor an index of either")


def list_tensors(path: Path) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the tensors in a file."""
    return {name: tuple(tensor.shape) for name, tensor in _open_bin(path).items()} if _is_bin(path) else _shapes(path)


def read_tensors(path: Path, names: Sequence[str]) -> Iterator[tuple[str, Tensor]]:
    """Yield the named tensors; each is valid only until the next one is asked for."""
    if _is_bin(path):
        tensors = _open_bin(path)
        for name in names:
            yield name, tensors[name]
            _release(tensors[name])
        return
    with _safe_open(path) as file:
        for name in names:
            tensor = file.get_tensor(name)
            yield name, tensor
            _release(tensor)


@dataclass(frozen=True)
class Source:
    """A tensor to be written; `make` is called when its turn comes."""

    name: str
    shape: tuple[int, ...]
    dtype: torch.dtype
    make: Callable[[], Tensor]

    @property
    def num_bytes(self) -> int:
        return torch.Size(self.shape).numel() * self.dtype.itemsize


def write_weights(folder: Path, sources: Iterable[Source], kind: WeightFormat, max_shard_bytes: int) -> None:
    """Write tensors in shards of at most `max_shard_bytes` (or one tensor), with an index where there are several."""
    shards: list[list[Source]] = [[]]
    for source in sources:
        if shards[-1] and sum(other.num_bytes for other in shards[-1]) + source.num_bytes > max_shard_bytes:
            shards.append([])
        shards[-1].append(source)
    stem, count = _STEMS[kind], len(shards)
    names = [f"{stem}-{n:05d}-of-{count:05d}.{kind}" for n in range(1, count + 1)] if count > 1 else [f"{stem}.{kind}"]
    for name, shard in zip(names, shards, strict=True):
        if kind == "bin":
            torch.save({source.name: source.make() for source in shard}, folder / name)
        else:
            _write_safetensors(folder / name, shard)
    if count > 1:
        where = {source.name: name for name, shard in zip(names, shards, strict=True) for source in shard}
        total = sum(source.num_bytes for shard in shards for source in shard)
        index = {"metadata": {"total_size": total}, "weight_map": where}
        (folder / f"{stem}.{kind}.index.json").write_text(json.dumps(index, indent=1), encoding="utf-8")


def _write_safetensors(path: Path, shard: Sequence[Source]) -> None:
    """Header first, then tensor after tensor: safetensors' own writer wants them all in memory."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for source in shard:
        begin, end = end, end + source.num_bytes
        header[source.name] = {
            "dtype": _SAFETENSORS_DTYPES[source.dtype],
            "shape": list(source.shape),
            "data_offsets": [begin, end],
        }
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for source in shard:
            tensor = source.make().to(source.dtype).contiguous().cpu()
            tensor.view(-1).view(torch.uint8).numpy().tofile(file)


def _is_bin(path: Path) -> bool:
    return path.suffix == ".bin"


def _safe_open(path: Path) -> Any:
    from safetensors import SafetensorError, safe_open

    try:
        return safe_open(path, framework="pt")
    except SafetensorError as error:
        raise CheckpointError(f"{path} is no whole safetensors file: {error}") from error


def _shapes(path: Path) -> dict[str, tuple[int, ...]]:
    with _safe_open(path) as file:
        return {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118


def _open_bin(path: Path) -> dict[str, Tensor]:
    """Map a pickle of tensors by the weights-only unpickler, which runs no code of the file's."""
    try:
        state = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except Exception as error:  # RuntimeError, UnpicklingError, EOFError and others, by how it is broken
        raise CheckpointError(f"{path} is no whole file of plain tensors: {error}") from error
    return {name: tensor for name, tensor in state.items() if isinstance(tensor, Tensor)}


def _release(tensor: Tensor) -> None:
    """Give back the pages that lie wholly inside a mapped tensor; they stay readable, from the file."""
    begin = -(-tensor.data_ptr() // mmap.PAGESIZE) * mmap.PAGESIZE
    end = (tensor.data_ptr() + tensor.nbytes) // mmap.PAGESIZE * mmap.PAGESIZE
    if end > begin and hasattr(mmap, "MADV_DONTNEED"):
        libc = ctypes.CDLL(None)
        libc.madvise(ctypes.c_void_p(begin), ctypes.c_size_t(end - begin), mmap.MADV_DONTNEED)
