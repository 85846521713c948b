"""Depth as a picture of the sequence: after a picture the model goes on with its depth map.

The model learns documents of two pictures, a given one and its depth as a grey one, by its own
image objective, whichever that is; depth is then drawn by the engine that draws stories. Scored as
Marigold's is. Legend: ``N`` pictures, ``H W`` their size.
"""

import copy
from dataclasses import dataclass, field, replace
from typing import ClassVar

import torch
from torch import Tensor, nn

from unimm.data.labelled.sets import LabelledPictures
from unimm.document import Batch, Document, ImageTokens, Part, layout_document, mix_seed, pack
from unimm.generation.request import Plan, Request
from unimm.generation.writer import PictureEvent, write
from unimm.nn.sampling import SamplingConfig
from unimm.pipeline import Pipeline
from unimm.probes.dense import OneCycleConfig
from unimm.probes.depth import Row
from unimm.probes.painted import (
    CEILING,
    ERROR,
    check_size,
    depth_picture_of,
    merge_members,
    painted_plot,
    painted_row,
    trivial_rows,
)
from unimm.probes.probe import Bench, ProbeConfig, ProbeResult

_CHUNK = 128  # pictures that are encoded at once


@dataclass(frozen=True, kw_only=True)
class DepthSequenceConfig(ProbeConfig):
    """Depth drawn after the picture.

    Attributes:
        objective: which of the model's objectives draws; empty is its first.
        train: of the whole model, from its own weights.
        sampling: how members are drawn; a row more is drawn at temperature 0.
        num_members: that are merged.
        batch_size: pictures drawn at once.
        trains_from_scratch: also train a model with fresh weights, as a control.
    """

    name: ClassVar[str] = "depth_sequence"

    objective: str = ""
    train: OneCycleConfig = field(
        default_factory=lambda: OneCycleConfig(num_steps=3000, batch_size=32, learning_rate=5e-4)
    )
    sampling: SamplingConfig = field(default_factory=SamplingConfig)
    num_members: int = 10
    batch_size: int = 128
    trains_from_scratch: bool = True

    def run(self, bench: Bench) -> ProbeResult:
        """Train, draw, and compare with what needs no training."""
        check_size(bench)
        test = bench.data.test
        pipeline = self._trained(bench)
        pictures = encode(pipeline, test.pixels)

        def draw(pipeline: Pipeline, sampling: SamplingConfig, member: int = 0) -> Tensor:
            seeds = [mix_seed(bench.seed, i, member) for i in range(len(test))]
            size = self.batch_size
            return draw_depth(pipeline, pictures, sampling, seeds=seeds, batch_size=size)

        likeliest = draw(pipeline, replace(self.sampling, temperature=0.0))
        members = torch.stack([draw(pipeline, self.sampling, i) for i in range(self.num_members)])
        merged = merge_members(members, bench.device, batch_size=self.batch_size)
        many = f"{self.num_members} samples merged"
        drawn = {"temperature 0": likeliest, "one sample": members[0], many: merged}
        table = {name: painted_row(test, depth) for name, depth in drawn.items()}
        for name, row in table.items():
            bench.tell(f"{name}: {row}")
        if self.trains_from_scratch:
            fresh = self._trained(bench.at_random("trunk"))
            table["model from scratch"] = painted_row(test, draw(fresh, self.sampling))
        table[CEILING] = self._ceiling(bench, pipeline)
        table |= trivial_rows(bench)
        return ProbeResult(
            table=table,
            controls=tuple(name for name in table if name not in drawn),
            score=ERROR,
            is_error=True,
            subject=many,
            ceilings=(CEILING,),
            figures={
                "objective": pipeline.drawing.name,
                "merged over one": round(
                    table[many][ERROR] / max(table["one sample"][ERROR], 1e-9), 4
                ),
                "test pictures": len(test),
            },
            pictures={"drawn": painted_plot(test, list(drawn.items()))},
        )

    def _pipeline(self, bench: Bench) -> Pipeline:
        if bench.model.pipeline is None:
            raise ValueError(f"{bench.model.name}: drawing depth needs a model of unimm's own")
        pipeline = bench.model.pipeline
        return pipeline.draw_by(self.objective or pipeline.model.config.objectives[0].name)

    def _trained(self, bench: Bench) -> Pipeline:
        return train_to_draw_depth(
            self._pipeline(bench),
            bench.data.train,
            self.train,
            seed=bench.seed,
            show_progress=bench.cache.show_progress,
        )

    def _ceiling(self, bench: Bench, pipeline: Pipeline) -> Row:
        """True depth, encoded and decoded."""
        chunks = depth_pixels(bench.data.test).split(_CHUNK)
        found = [pipeline.reconstruct(_shown(pipeline, x)).mean(1).cpu() for x in chunks]
        return painted_row(bench.data.test, torch.cat(found))


def train_to_draw_depth(
    pipeline: Pipeline,
    part: LabelledPictures,
    config: OneCycleConfig,
    *,
    seed: int,
    show_progress: bool = True,
) -> Pipeline:
    """Train a copy of a model on pictures that their depth follows.

    Everything is trained, text too: it says that a picture follows.

    Returns:
        The pipeline with the copy.
    """
    from rich.progress import track

    model = copy.deepcopy(pipeline.model).requires_grad_(True).train()
    model.bind(pipeline.image_tokenizer)
    trained = replace(pipeline, model=model)
    pictures, depths = encode(pipeline, part.pixels), encode(pipeline, depth_pixels(part))
    parameters = list(model.parameters())
    optimizer = torch.optim.AdamW(
        parameters, lr=config.learning_rate, weight_decay=config.weight_decay, betas=(0.9, 0.98)
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, config.learning_rate, total_steps=config.num_steps, pct_start=0.05
    )
    order = torch.Generator().manual_seed(seed)
    device = pipeline.device.type
    steps = range(config.num_steps)
    for step in track(steps, description="depth", disable=not show_progress):
        rows = torch.randint(len(part), (config.batch_size,), generator=order).tolist()
        # Numbered by when they come: a picture meets other masks, times and noise each time.
        numbers = range(step * len(rows), (step + 1) * len(rows))
        batch = _batch(trained, pictures, depths, rows, numbers, seed)
        with torch.autocast(device, torch.bfloat16, enabled=device == "cuda"):
            # One short document a row: compiling another attention would take longer than it saves.
            cost = model(batch, backend="dense").total
        optimizer.zero_grad()
        cost.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        schedule.step()
    model.eval().requires_grad_(False)
    return trained


def draw_depth(
    pipeline: Pipeline,
    pictures: ImageTokens,
    sampling: SamplingConfig,
    *,
    seeds: list[int],
    batch_size: int,
) -> Tensor:
    """Let a model go on after pictures.

    Args:
        pipeline: of ``train_to_draw_depth``.
        pictures: N, stacked.
        sampling: how depth is drawn.
        seeds: one a picture.
        batch_size: pictures at once.

    Returns:
        Depth ``(N, H, W)`` about [-1, 1], on the CPU.
    """
    plan = Plan(text=pipeline.sampler.text, first_page=sampling, later_pages=sampling)
    found: list[Tensor] = []
    for rows in torch.arange(len(seeds)).split(batch_size):
        requests = [
            Request(parts=(_given(pictures, i),), page_texts=([],), seed=seeds[i])
            for i in rows.tolist()
        ]
        drawn = {
            event.document: event.tokens
            for event in write(pipeline, requests, plan)
            if isinstance(event, PictureEvent)
        }
        tokens = ImageTokens.stack([drawn[i] for i in range(len(rows))])
        pixels = pipeline.image_tokenizer.decode(
            tokens.map(lambda x: x.to(pipeline.device)),
            prefer_latents=pipeline.drawing.needs_latents,
        )
        found.append(pixels.mean(1).cpu())
    return torch.cat(found)


def encode(pipeline: Pipeline, pixels: Tensor) -> ImageTokens:
    """Tokens of pictures ``(N, 3, H, W)``, uint8 or float, as the model's objective draws them."""
    chunks = [
        pipeline.image_tokenizer.encode(_shown(pipeline, x), pipeline.schedule).map(Tensor.cpu)
        for x in pixels.split(_CHUNK)
    ]
    return ImageTokens.cat(chunks)


def depth_pixels(part: LabelledPictures) -> Tensor:
    """The set's depth as grey pictures ``(N, 3, H, W)`` in [-1, 1]."""
    return depth_picture_of(part.need("depth"), part.need("has_depth"))


def _shown(pipeline: Pipeline, pixels: Tensor) -> Tensor:
    """On the model's device, float in [-1, 1]."""
    pixels = pixels.to(pipeline.device)
    return pixels if pixels.is_floating_point() else pixels / 127.5 - 1


def _given(pictures: ImageTokens, row: int) -> Part:
    return Part(tokens=pictures[row], is_drawn=False)


def _batch(
    pipeline: Pipeline,
    pictures: ImageTokens,
    depths: ImageTokens,
    rows: list[int],
    numbers: range,
    seed: int,
) -> Batch:
    """One document a row: a given picture, and its depth to be drawn."""
    documents = [
        Document(
            parts=(_given(pictures, row), Part(tokens=depths[row])), is_open=True, index=number
        )
        for row, number in zip(rows, numbers, strict=True)
    ]
    special = pipeline.model.special
    layouts = [layout_document(x, pipeline.drawing, special) for x in documents]
    batch = pack(
        [[x] for x in layouts],
        row_length=len(layouts[0]),
        heads=pipeline.model.config.heads,
        seed=seed,
    )
    return batch.to(pipeline.device)
