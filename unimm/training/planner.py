"""Says before a run whether it fits and how long it takes: bytes on each GPU, tokens/s, days.

Sizes are the real model's and its step's own, found on tensors without data (``footprint.py``);
what DeepSpeed keeps beside them in each ZeRO stage stands in ``memory.py``.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch

from unimm.data.shards import ShardManifest
from unimm.document import (
    Batch,
    Document,
    ImageTokens,
    Layout,
    Part,
    SpecialIds,
    layout_document,
    pack,
)
from unimm.model import UniMM
from unimm.objectives.base import ImageSpec, ObjectiveConfig
from unimm.tokenizer.image import ImageTokenizer
from unimm.training.config import EngineConfig, TrainConfig
from unimm.training.footprint import StepBytes, measure_step
from unimm.training.log import ModelFlops
from unimm.training.memory import HALF, SINGLE, Memory, estimate_memory

_USABLE = 0.92  # of a GPU: the rest goes to fragments, NCCL and CUDA's own
_MOST_GPUS = 4096


@dataclass(frozen=True, kw_only=True)
class Cluster:
    """What a run would run on.

    Attributes:
        num_gpus: all of them hold a share of the data.
        gpu_bytes: memory of one.
        peak_flops: dense bfloat16 operations a second of one, from its data sheet.
        mfu: share of them that a step is assumed to reach before it communicates.
        bandwidth: bytes a second that one GPU sends to others; between nodes, the slower one.
    """

    num_gpus: int
    gpu_bytes: float = 80e9
    peak_flops: float = 989e12
    mfu: float = 0.4
    bandwidth: float = 50e9


@dataclass(frozen=True, kw_only=True)
class Speed:
    """How fast a run would be, from the assumptions of ``Cluster``.

    Attributes:
        tokens_per_second: positions of all GPUs.
        step_seconds: one optimizer step.
        communication: share of it that is spent sending, nothing overlapped.
        days: for ``max_steps`` steps.
    """

    tokens_per_second: float
    step_seconds: float
    communication: float
    days: float


class Planner:
    """Estimates variants of one run.

    Args:
        config: of the run; its data is not read.
        special: of its text tokenizer.
        image_tokenizer: the run's.
        image_size: side of the pictures in pixels.
        text_tokens: text ids before each picture, of the documents that stand in for the data.
    """

    def __init__(
        self,
        config: TrainConfig,
        *,
        special: SpecialIds,
        image_tokenizer: ImageTokenizer,
        image_size: int,
        text_tokens: int = 64,
    ) -> None:
        self.config = config
        self._special, self._tokenizer, self._text_tokens = special, image_tokenizer, text_tokens
        self._grid = image_tokenizer.grid_size(image_size, image_size)
        self._traced: dict[object, StepBytes] = {}

    @cached_property
    def num_parameters(self) -> int:
        """Weights that are trained."""
        return sum(p.numel() for p in self._blank_model.parameters())

    @cached_property
    def _blank_model(self) -> UniMM:
        with torch.device("meta"):
            return self.make_model()

    def memory(
        self, engine: EngineConfig, *, num_gpus: int, micro_rows: int, num_micro: int = 1
    ) -> Memory:
        """Estimate one GPU's worst moment.

        Args:
            engine: stage, precision and what is recomputed.
            num_gpus: ranks.
            micro_rows: rows of one forward.
            num_micro: forwards of a step.
        """
        step = self._trace(engine, micro_rows)
        return estimate_memory(
            self.num_parameters, engine, step, num_gpus=num_gpus, num_micro=num_micro
        )

    def speed(self, engine: EngineConfig, cluster: Cluster, *, micro_rows: int) -> Speed:
        """Estimate a run's speed from its counted operations and the cluster's assumptions."""
        rows = self.config.data.rows_per_step
        num_micro = max(rows * engine.sequence_ranks // (micro_rows * cluster.num_gpus), 1)
        flops = ModelFlops(self._blank_model, self._tokenizer)(self.batch(1)) * rows
        if engine.checkpoint_activations:
            flops *= 4 / 3  # one more forward
        compute = flops / (cluster.num_gpus * cluster.peak_flops * cluster.mfu)
        width = HALF if engine.precision != "float32" else SINGLE
        # Reduce-scatter and all-gather once a step; ZeRO 3 gathers twice in every micro-step.
        rounds = 3 * num_micro if engine.zero_stage == 3 else 2
        sent = rounds * width * self.num_parameters * (1 - 1 / cluster.num_gpus)
        seconds = compute + sent / cluster.bandwidth
        return Speed(
            tokens_per_second=rows * self.config.data.row_length / seconds,
            step_seconds=seconds,
            communication=1 - compute / seconds,
            days=self.config.max_steps * seconds / 86400,
        )

    def ways_to_fit(self, cluster: Cluster, *, micro_rows: int) -> Iterator[tuple[str, Memory]]:
        """Give settings under which the run would fit, the cheapest changes first.

        Yields:
            What to change, in words, and the memory it then takes.
        """
        rows = self.config.data.rows_per_step
        enough: list[set[str]] = []  # what fits without more is not listed with more
        own = vars(self.config.engine)
        for engine, micro in self._variants(micro_rows):
            num_gpus = cluster.num_gpus
            while num_gpus <= _MOST_GPUS:
                found = self.memory(
                    engine,
                    num_gpus=num_gpus,
                    micro_rows=micro,
                    num_micro=max(rows * engine.sequence_ranks // (micro * num_gpus), 1),
                )
                if fits(found, cluster):
                    break
                num_gpus *= 2
            else:
                continue
            words = [f"engine.{k} {value}" for k, value in vars(engine).items() if own[k] != value]
            if micro != micro_rows:
                words.append(f"data.micro_rows {micro}")
            if any(fewer <= set(words) for fewer in enough):
                continue
            if num_gpus != cluster.num_gpus:
                words.append(f"{num_gpus} GPUs")
            else:
                enough.append(set(words))
            yield " and ".join(words), found

    def _variants(self, micro_rows: int) -> Iterator[tuple[EngineConfig, int]]:
        own = self.config.engine
        for micro in sorted({micro_rows, 1}, reverse=True):
            for recompute in sorted({own.checkpoint_activations, True}):
                for stage in range(own.zero_stage, 4):
                    engine = with_stage(own, stage, checkpoint_activations=recompute)
                    if engine is not None and (engine != own or micro != micro_rows):
                        yield engine, micro

    def batch(self, num_rows: int) -> Batch:
        """Rows full of documents of text and one drawn picture, the objectives in turn."""
        objectives = self.config.model.objectives
        layouts = [self._layout(objective) for objective in objectives]
        length = self.config.data.row_length
        longest = max(map(len, layouts))
        if longest > length:
            raise ValueError(
                f"a text of {self._text_tokens} ids and a picture take {longest} positions, more "
                f"than a row of {length}: raise data.row_length, or plan with a smaller picture"
            )
        rows: list[list[Layout]] = []
        for number in range(num_rows):
            row, used = [], 0
            while used + len(layouts[(number + len(row)) % len(layouts)]) <= length:
                row.append(layouts[(number + len(row)) % len(layouts)])
                used += len(row[-1])
            rows.append(row)
        heads = tuple(objective.name for objective in objectives)
        return pack(rows, row_length=length, heads=heads, pad_id=self._special.pad)

    def _layout(self, objective: ObjectiveConfig) -> Layout:
        manifest = ShardManifest(
            tokenizer_hash="",
            codebook_size=self._tokenizer.codebook_size,
            grid_size=self._grid,
            split="train",
            seed=0,
            documents_per_shard=1,
            latent_dim=self._tokenizer.latent_dim,
        )
        picture: ImageTokens = manifest.blank(objective.schedule, 1)[0]
        text = torch.full((self._text_tokens,), self._special.null, dtype=torch.int64)
        document = Document(parts=(Part(text_ids=text), Part(tokens=picture)))
        return layout_document(document, objective, self._special)

    def bind(self, model: UniMM) -> None:
        """Hand a model the image tokenizer."""
        model.bind(self._tokenizer)

    def make_model(self) -> UniMM:
        """The run's model, freshly drawn."""
        spec = ImageSpec(
            codebook_size=self._tokenizer.codebook_size,
            latent_dim=self._tokenizer.latent_dim,
            grid_size=self._grid[0],
        )
        return UniMM(self.config.model, special=self._special, spec=spec)

    def _trace(self, engine: EngineConfig, micro_rows: int) -> StepBytes:
        # Otherwise the stage changes nothing here.
        stage = 1 if engine.zero_stage < 3 else 3
        key = (micro_rows, replace(engine, zero_stage=stage))
        if key not in self._traced:
            self._traced[key] = measure_step(
                self.make_model,
                self.batch(micro_rows),
                bind=self.bind,
                engine=engine,
            )
        return self._traced[key]


def with_stage(engine: EngineConfig, stage: Any, **changes: Any) -> EngineConfig | None:
    """Give the same engine in another ZeRO stage; None where its settings exclude each other."""
    try:
        return replace(engine, zero_stage=stage, **changes)
    except ValueError:
        return None


def fits(memory: Memory, cluster: Cluster) -> bool:
    """Whether it fits a GPU, with room for what no tensor accounts for."""
    return memory.total <= _USABLE * cluster.gpu_bytes
