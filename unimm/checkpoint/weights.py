"""Weights on disk: safetensors, in shards when large, matrices in int8 or bfloat16 if asked.

Int8 keeps one scale a row (an output channel of a convolution), the largest magnitude over 127,
rounded to bfloat16. With so few digits every stored value is exact in float32, so that saving what
was loaded writes the same bytes again and the hash of a tokenizer does not drift.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from unimm.nn.linear import Linear, has_int8_kernel

Precision = Literal["float32", "bfloat16", "int8"]
PRECISIONS: tuple[Precision, ...] = ("float32", "bfloat16", "int8")

WEIGHTS_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"
SCALE = ".scale"  # suffix of the scales that belong to an int8 matrix


def store(
    state: Mapping[str, Tensor], precision: Precision, *, exact: tuple[str, ...] = ()
) -> dict[str, Tensor]:
    """Convert weights to the form in which they are kept.

    Args:
        state: name -> tensor.
        precision: of matrices and convolutions; vectors stay in float32.
        exact: names that stay as they are.

    Raises:
        ValueError: on an unknown precision.
    """
    if precision not in PRECISIONS:
        raise ValueError(f"unknown precision {precision!r}; known: {', '.join(PRECISIONS)}")
    stored: dict[str, Tensor] = {}
    for name, given in state.items():
        tensor = given.detach().to("cpu").contiguous()  # a GPU's convolutions are channels last
        if not tensor.is_floating_point() or name in exact:
            stored[name] = tensor
        elif tensor.ndim < 2 or precision == "float32":
            stored[name] = tensor.float()
        elif precision == "bfloat16":
            stored[name] = tensor.bfloat16()
        else:
            stored[name], stored[name + SCALE] = to_int8(tensor.float())
    return stored


def restore(stored: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Undo ``store``: every floating tensor in float32, int8 matrices multiplied out.

    Raises:
        ValueError: if an int8 matrix has no scales.
    """
    state: dict[str, Tensor] = {}
    for name, tensor in stored.items():
        if tensor.dtype == torch.int8:
            if name + SCALE not in stored:
                raise ValueError(f"int8 weights {name} have no {name + SCALE}")
            scale = stored[name + SCALE].float()
            state[name] = tensor.float() * scale.view(-1, *[1] * (tensor.ndim - 1))
        elif not (name.endswith(SCALE) and name.removesuffix(SCALE) in stored):
            state[name] = tensor.float() if tensor.is_floating_point() else tensor
    return state


def to_int8(tensor: Tensor) -> tuple[Tensor, Tensor]:
    """Round a float32 matrix or convolution to int8 and one bfloat16 scale a row.

    What was rounded before is given back exactly.
    """
    rows = tensor.reshape(tensor.shape[0], -1)
    scale = (rows.abs().amax(1) / 127).bfloat16()
    steps = torch.where(scale == 0, 1, scale).float()  # a row of zeros stays one
    codes = (rows / steps[:, None]).round().clamp(-127, 127).to(torch.int8)
    return codes.view(tensor.shape), scale


def keep_int8(model: nn.Module) -> None:
    """Let a model that was loaded from int8 multiply with int8 on a CPU made for it.

    The matrices stay what they are: one that int8 does not hold exactly is left alone.
    """
    for module in model.modules() if has_int8_kernel() else ():
        if isinstance(module, Linear):
            codes, scales = to_int8(module.weight.detach())
            if torch.equal(codes * scales.float()[:, None], module.weight):
                module.keep_int8(codes, scales)


def write_weights(
    folder: Path, tensors: Mapping[str, Tensor], *, max_shard_bytes: int | None = None
) -> None:
    """Write ``model.safetensors``, or shards and their index when it would be larger.

    Nothing is copied in memory, and weights already there stay until the new ones are whole.

    Args:
        folder: that exists; weights already there are replaced.
        tensors: name -> contiguous tensor on the CPU.
        max_shard_bytes: largest size of a file, its header included; None never splits. A tensor
            that is larger by itself gets a file of its own.
    """
    shards = _split(tensors, max_shard_bytes)
    count = len(shards)
    names = [f"model-{number:05d}-of-{count:05d}.safetensors" for number in range(1, count + 1)]
    if count == 1:
        names = [WEIGHTS_FILE]
    for name, shard in zip(names, shards, strict=True):
        save_file(shard, _partial(folder / name), metadata={"format": "pt"})
    for old in (*folder.glob("model*.safetensors"), folder / INDEX_FILE):
        if old.name not in names:
            old.unlink(missing_ok=True)
    for name in names:
        _partial(folder / name).replace(folder / name)
    if count == 1:
        return
    index = {
        "metadata": {"total_size": sum(tensor.nbytes for tensor in tensors.values())},
        "weight_map": {
            key: name for name, shard in zip(names, shards, strict=True) for key in shard
        },
    }
    (folder / INDEX_FILE).write_text(json.dumps(index, indent=1) + "\n", encoding="utf-8")


def _partial(path: Path) -> Path:
    """Where a file is written before it takes its place."""
    return path.with_name(f"{path.name}.partial")


def _split(tensors: Mapping[str, Tensor], limit: int | None) -> list[dict[str, Tensor]]:
    header = 256  # bytes that a tensor takes in the file's header, generously
    shards: list[dict[str, Tensor]] = [{}]
    size = 0
    for name, tensor in tensors.items():
        needed = tensor.nbytes + header
        if limit is not None and shards[-1] and size + needed > limit:
            shards.append({})
            size = 0
        shards[-1][name] = tensor
        size += needed
    return shards


def read_weights(folder: Path) -> dict[str, Tensor]:
    """Read all tensors of a folder, sharded or not, as they are stored.

    Raises:
        ValueError: naming the file that is missing, truncated or not what the index says.
    """
    index = folder / INDEX_FILE
    if not index.is_file():
        return _read_file(folder / WEIGHTS_FILE)
    weight_map: dict[str, str] = read_json(index).get("weight_map", {})
    tensors: dict[str, Tensor] = {}
    for name in sorted(set(weight_map.values())):
        tensors |= _read_file(folder / name)
    missing = sorted(weight_map.keys() - tensors.keys())
    if missing:
        raise ValueError(
            f"{index} promises {missing[:3]}, but {weight_map[missing[0]]} does not hold them: "
            "the shards are of different models, copy the whole folder again"
        )
    return tensors


def _read_file(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        raise ValueError(f"{path} is missing: copy the whole model folder, every shard of it")
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise ValueError(
            f"{path} ({path.stat().st_size} bytes) is truncated or no safetensors file "
            f"({error}): copy it again"
        ) from error


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        ValueError: if the file is missing or holds something else.
    """
    if not path.is_file():
        raise ValueError(f"{path} is missing: {path.parent} is not a model folder")
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not valid JSON: {error}") from error
    if not isinstance(values, dict):
        raise ValueError(f"{path} must hold a JSON object, found {type(values).__name__}")
    return values


def check_tensors(wanted: Mapping[str, Tensor], found: Mapping[str, Tensor], source: str) -> None:
    """Compare names and shapes before loading.

    Raises:
        ValueError: naming what is missing, unknown or of another shape.
    """
    missing, unknown = sorted(wanted.keys() - found.keys()), sorted(found.keys() - wanted.keys())
    if missing or unknown:
        raise ValueError(
            f"{source}: the weights do not fit the configuration: missing {missing[:3]} "
            f"({len(missing)}), unknown {unknown[:3]} ({len(unknown)})"
        )
    for name, tensor in found.items():
        if tensor.shape != wanted[name].shape:
            raise ValueError(
                f"{source}: {name} is {tuple(tensor.shape)}, but the configuration asks for "
                f"{tuple(wanted[name].shape)}"
            )
