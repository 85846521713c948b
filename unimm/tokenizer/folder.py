"""An image tokenizer as a folder: ``config.json`` and ``model.safetensors``."""

import json
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from unimm.config import config_from_dict, config_to_dict
from unimm.tokenizer.image import ImageTokenizer, ImageTokenizerConfig

CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"


def save_image_tokenizer(
    tokenizer: ImageTokenizer, folder: str | Path, *, dtype: torch.dtype = torch.float32
) -> None:
    """Write a tokenizer's configuration and weights.

    Args:
        tokenizer: what to write; what only training needs is left out.
        folder: made if missing.
        dtype: number format of matrices and convolutions. Vectors, the codebook and the statistics
            stay in float32: they are small, and a rounded codebook gives other codes.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)

    def stored(name: str, tensor: Tensor) -> Tensor:
        is_weight = tensor.ndim > 1 and not name.startswith("quantizer.")
        return tensor.to(device="cpu", dtype=dtype if is_weight else None).contiguous()

    state = {name: stored(name, tensor) for name, tensor in tokenizer.to_state().items()}
    save_file(state, folder / WEIGHTS_FILE, metadata={"format": "pt"})
    text = json.dumps(config_to_dict(tokenizer.config), indent=2)
    (folder / CONFIG_FILE).write_text(text + "\n", encoding="utf-8")


def load_image_tokenizer(folder: str | Path) -> ImageTokenizer:
    """Read a tokenizer that ``save_image_tokenizer`` wrote: float32, on the CPU, for use.

    Raises:
        ValueError: if a file is missing, or configuration and weights do not belong together.
    """
    folder = Path(folder)
    for name in (CONFIG_FILE, WEIGHTS_FILE):
        if not (folder / name).is_file():
            raise ValueError(f"{folder} has no {name}: it is not an image tokenizer's folder")
    values = json.loads((folder / CONFIG_FILE).read_text(encoding="utf-8"))
    config = config_from_dict(ImageTokenizerConfig, values, source=str(folder / CONFIG_FILE))
    state = {name: t.float() for name, t in load_file(folder / WEIGHTS_FILE).items()}
    return ImageTokenizer.from_state(config, state)
