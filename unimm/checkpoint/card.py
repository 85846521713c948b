"""The model card that a model folder carries."""

from typing import Any

CARD_FILE = "README.md"

_CARD = """\
---
library_name: unimm
license: apache-2.0
pipeline_tag: text-to-image
tags: [interleaved-generation, story-generation]
---

# {name}

Writes and draws stories: one decoder-only transformer predicts text, and pictures by
{objectives}.

```python
import unimm

pipeline = unimm.load_pipeline("{name}")
story = unimm.generate_story(pipeline, "Mia the fox finds a red balloon.", num_images=4)
story.save("story.html")
```

| | |
|---|---|
{rows}
"""


def model_card(name: str, manifest: dict[str, Any], *, num_parameters: int) -> str:
    """Write the card of a model.

    Args:
        name: of the model folder.
        manifest: the plain values of ``config.json``.
        num_parameters: of the model, its tokenizers not counted.
    """
    backbone, spec = manifest["model"]["backbone"], manifest["spec"]
    facts = {
        "parameters": f"{num_parameters / 1e6:.1f}M",
        "trunk": f"width {backbone['dim']}, depth {backbone['depth']}, "
        f"{backbone['num_heads']} heads",
        "context": f"{backbone['max_seq_len']} positions",
        "pictures": f"{spec['grid_size']} x {spec['grid_size']} codes of {spec['codebook_size']}",
        "weights kept in": manifest["precision"],
        "text tokenizer": f"`{manifest['text_tokenizer_hash'][:12]}`",
        "image tokenizer": f"`{manifest['image_tokenizer_hash'][:12]}`",
    }
    facts |= {key.replace("_", " "): value for key, value in manifest["metadata"].items()}
    return _CARD.format(
        name=name,
        objectives=", ".join(x["name"] for x in manifest["model"]["objectives"]),
        rows="\n".join(f"| {key} | {value} |" for key, value in facts.items()),
    )
