"""What is kept of an image tokenizer to use it, and the tokenizer made of that."""

from torch import Tensor

from unimm.tokenizer.image import ImageTokenizer
from unimm.tokenizer.image_config import ImageTokenizerConfig


def image_tokenizer_state(tokenizer: ImageTokenizer) -> dict[str, Tensor]:
    """Weights, codebook, statistics of the latents.

    Moving averages that only training needs are left out. All but encoder and decoder is best kept
    in float32; a rounded codebook gives other codes.
    """
    state = {
        name: tensor.detach()
        for name, tensor in tokenizer.state_dict().items()
        if not name.startswith(("quantizer.", "scale_quantizer."))
    }
    state["quantizer.codebook"] = tokenizer.codebook_vectors.detach()
    if tokenizer.scale_quantizer is not None:
        state["scale_quantizer.codebook"] = tokenizer.scale_quantizer.codebook_vectors.detach()
    return state


def image_tokenizer_of(config: ImageTokenizerConfig, state: dict[str, Tensor]) -> ImageTokenizer:
    """Make a tokenizer for use from what ``image_tokenizer_state`` gave, in evaluation mode.

    Raises:
        ValueError: if tensors are missing, unknown or of another shape.
    """
    tokenizer = ImageTokenizer(config)
    wanted = image_tokenizer_state(tokenizer)
    if wanted.keys() != state.keys():
        missing = sorted(wanted.keys() - state.keys())[:3]
        unknown = sorted(state.keys() - wanted.keys())[:3]
        raise ValueError(
            f"these are not an image tokenizer's weights: missing {missing}, unknown {unknown}; "
            "do config and weights come from one folder?"
        )
    for name, tensor in state.items():
        if tensor.shape != wanted[name].shape:
            raise ValueError(
                f"{name} is {tuple(tensor.shape)}, but the configuration says "
                f"{tuple(wanted[name].shape)}; do config and weights come from one folder?"
            )
    weights = {k: v for k, v in state.items() if not k.endswith("quantizer.codebook")}
    tokenizer.load_state_dict(weights, strict=False)
    tokenizer.quantizer.freeze(state["quantizer.codebook"])
    if tokenizer.scale_quantizer is not None:
        tokenizer.scale_quantizer.freeze(state["scale_quantizer.codebook"])
    return tokenizer.eval().requires_grad_(False)
