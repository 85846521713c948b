"""Start a run from another run's model: a later stage of training, or another objective."""

from pathlib import Path
from typing import NamedTuple

from unimm.checkpoint.folder import CONFIG_FILE, TIED
from unimm.checkpoint.weights import read_json, read_weights, restore
from unimm.model import UniMM


class Started(NamedTuple):
    """What became of the weights.

    Attributes:
        taken: names that both models have.
        fresh: names of the new model alone, left as they were drawn.
        unused: names of the old model alone, such as another objective's head.
    """

    taken: list[str]
    fresh: list[str]
    unused: list[str]


def init_from_model(
    model: UniMM, folder: str | Path, *, text_tokenizer_hash: str, image_tokenizer_hash: str
) -> Started:
    """Copy the weights that a model folder shares with a model into it.

    Args:
        model: to fill.
        folder: of the old model.
        text_tokenizer_hash: of the new run's tokenizer, which must be the old one's.
        image_tokenizer_hash: the same.

    Raises:
        ValueError: another tokenizer, a shared weight of another shape, or nothing shared.
    """
    folder = Path(folder)
    manifest = read_json(folder / CONFIG_FILE)
    for what, own in (
        ("text_tokenizer_hash", text_tokenizer_hash),
        ("image_tokenizer_hash", image_tokenizer_hash),
    ):
        if manifest.get(what) != own:
            raise ValueError(
                f"initial_model {folder} has {what} {manifest.get(what)}, this run {own}: its ids "
                "would mean something else; use its tokenizers"
            )
    old, new = restore(read_weights(folder)), model.state_dict()
    if model.config.is_tied:
        new.pop(TIED)
    for name in old.keys() & new.keys():
        if old[name].shape != new[name].shape:
            raise ValueError(
                f"initial_model {folder}: {name} is {tuple(old[name].shape)}, this model's is "
                f"{tuple(new[name].shape)}: give both the same sizes"
            )
    taken = sorted(old.keys() & new.keys())
    if not taken:
        raise ValueError(f"initial_model {folder} shares no weight with this model")
    model.load_state_dict({name: old[name] for name in taken}, strict=False)
    fresh, unused = sorted(new.keys() - old.keys()), sorted(old.keys() - new.keys())
    return Started(taken, fresh, unused)
