"""Training steps of models of published sizes on made-up documents, to be timed."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from unimm.document import Batch, Document, ImageTokens, Part, layout_document, pack
from unimm.document.layout import Layout
from unimm.evaluation.random_models import RandomModel, random_pipeline
from unimm.objectives.base import ObjectiveConfig
from unimm.objectives.next_scale import NextScaleConfig
from unimm.pipeline import Pipeline
from unimm.training.config import EngineConfig, OptimizerConfig
from unimm.training.engine import Engine
from unimm.training.log import ModelFlops


@dataclass(frozen=True, kw_only=True)
class MeasuredStep:
    """A training step.

    Attributes:
        run: forward, backward, clipping, AdamW, moving average of a batch, by its number.
        flops: counted operations of each batch.
    """

    run: Callable[[int], None]
    flops: tuple[float, ...]


def measured_step(
    sizes: RandomModel, batches: Callable[[Pipeline], Sequence[Batch]], *, device: torch.device
) -> MeasuredStep:
    """Build a model and its training engine: bfloat16 autocast, compiled on a GPU.

    Args:
        sizes: of the model.
        batches: makes what is trained on.
        device: to train on.
    """
    pipeline = random_pipeline(sizes, device=device, dtype=torch.float32)
    model = pipeline.model.train().requires_grad_(True)
    hosts = batches(pipeline)
    count = ModelFlops(model, pipeline.image_tokenizer)
    flops = tuple(map(count, hosts))
    optimizer, is_cuda = OptimizerConfig(), device.type == "cuda"
    config = EngineConfig(precision="autocast" if is_cuda else "float32", compile=is_cuda)
    engine = Engine(model, config, optimizer, device=device)
    there = [batch.to(device) for batch in hosts]
    seen = 0

    def run(number: int) -> None:
        nonlocal seen
        engine.backward(engine.forward(there[number]).total)
        engine.step(learning_rate=optimizer.learning_rate, step=seen)
        seen += 1

    return MeasuredStep(run=run, flops=flops)


def picture_rows(pipeline: Pipeline, *, num_rows: int, documents: int) -> Batch:
    """Rows of so many documents, each a picture without text that nothing follows."""
    layouts = [_layout(pipeline, [0], index=i, is_open=True) for i in range(num_rows * documents)]
    rows = [layouts[i : i + documents] for i in range(0, len(layouts), documents)]
    return _pack(pipeline, rows, sum(map(len, rows[0])))


def interleaved_rows(pipeline: Pipeline, *, num_rows: int, row_length: int) -> Batch:
    """Rows packed full of documents of one to three pictures, each behind a text of its own length.

    Documents that do not fit a row's rest begin the next one; the rest is padding.
    """
    generator = torch.Generator().manual_seed(0)
    rows: list[list[Layout]] = []
    row: list[Layout] = []
    while len(rows) < num_rows:
        count = int(torch.randint(1, 4, (), generator=generator))
        texts = [int(x) for x in torch.randint(8, 64, (count,), generator=generator)]
        layout = _layout(pipeline, texts, index=len(rows) * row_length + len(row), is_open=False)
        if row and sum(map(len, row)) + len(layout) > row_length:
            rows.append(row)
            row = []
        row.append(layout)
    return _pack(pipeline, rows, row_length)


def _pack(pipeline: Pipeline, rows: Sequence[Sequence[Layout]], length: int) -> Batch:
    model = pipeline.model
    return pack(rows, row_length=length, heads=model.config.heads, pad_id=model.special.pad)


def _layout(pipeline: Pipeline, texts: Sequence[int], *, index: int, is_open: bool) -> Layout:
    """A document that draws a picture behind each of texts of these lengths."""
    generator = torch.Generator().manual_seed(index)
    vocabulary, parts = pipeline.text_tokenizer.vocab_size, list[Part]()
    for length in texts:
        if length:
            words = torch.randint(0, vocabulary, (length,), generator=generator)
            parts.append(Part(text_ids=words))
        parts.append(Part(tokens=_picture(pipeline, pipeline.drawing, generator)))
    document = Document(parts=tuple(parts), is_open=is_open, index=index)
    return layout_document(document, pipeline.drawing, pipeline.model.special)


def _picture(
    pipeline: Pipeline, objective: ObjectiveConfig, generator: torch.Generator
) -> ImageTokens:
    spec = pipeline.model.spec

    def codes(side: int) -> torch.Tensor:
        return torch.randint(0, spec.codebook_size, (side, side), generator=generator)

    scales = objective.scales if isinstance(objective, NextScaleConfig) else ()
    return ImageTokens(codes=codes(spec.grid_size), scale_codes=tuple(map(codes, scales)))
