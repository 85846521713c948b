"""What ``eval/score_images.py`` runs."""

from dataclasses import dataclass, field

from unimm.data.world.scene import STYLES
from unimm.evaluation.worldeval import ALL_TASKS, SPLITS
from unimm.nn.sampling import SamplingConfig

NO_MODEL = "none"
"""In place of a model: the pictures come from elsewhere."""


@dataclass(frozen=True, kw_only=True)
class NamedSampling:
    """One setting of a sweep.

    Attributes:
        name: what it is called in tables.
        sampling: how pictures are drawn.
    """

    name: str = "default"
    sampling: SamplingConfig = field(default_factory=SamplingConfig)


@dataclass(frozen=True, kw_only=True)
class PictureRunConfig:
    """One run of WorldEval.

    Attributes:
        model: shipped name, folder or Hub id; ``none`` judges what lies in ``OUTPUT/samples``.
        objective: of the model that draws; empty is its first.
        detector: folder of the judge.
        extractor: folder of the network whose features tell how near the pictures are to real
            ones (CLIP, DINOv2, Inception); empty takes the detector's own.
        output: folder of the run; see ``unimm.evaluation.picture_folder``.
        ledger: folder of the ledger; empty writes none.
        name: of the ledger.
        tasks: of WorldEval; ``descriptive`` has a score of its own, the mean is over the others.
        splits: ``seen`` and ``heldout``.
        styles: arts that the model has been trained on.
        num_prompts: of each task and split, at least 2.
        num_samples: pictures of each prompt; GenEval has 4.
        num_training_documents: among whose pictures the nearest neighbour is looked for.
        training_seed: of those documents.
        batch_size: pictures drawn at once.
        seed: of the prompts and of the drawing.
        sampling: how pictures are drawn.
        sweep: settings that are compared first, on seen prompts of another seed; the one with the
            best mean over the tasks replaces ``sampling``.
        sweep_prompts: of each task in that comparison.
        max_cards: pictures of each task and split in the report.
        device: "cpu" or "cuda"; empty takes the GPU where there is one.
    """

    model: str = "storyworld"
    objective: str = ""
    detector: str = "unimm/assets/models/detector"
    extractor: str = ""
    output: str = "runs/worldeval"
    ledger: str = ""
    name: str = "worldeval"
    tasks: tuple[str, ...] = ALL_TASKS
    splits: tuple[str, ...] = tuple(SPLITS)
    styles: tuple[str, ...] = ("3d",)
    num_prompts: int = 100
    num_samples: int = 1
    num_training_documents: int = 20_000
    training_seed: int = 0
    batch_size: int = 256
    seed: int = 7001
    sampling: SamplingConfig = field(
        default_factory=lambda: SamplingConfig(temperature=0.8, top_k=100, guidance_scale=1.5)
    )
    sweep: tuple[NamedSampling, ...] = ()
    sweep_prompts: int = 20
    max_cards: int = 12
    device: str = ""

    def __post_init__(self) -> None:
        for name, chosen, known in (
            ("tasks", self.tasks, ALL_TASKS),
            ("splits", self.splits, tuple(SPLITS)),
            ("styles", self.styles, STYLES),
        ):
            unknown = [x for x in chosen if x not in known]
            if unknown or not chosen:
                raise ValueError(f"{name} {chosen}: unknown {unknown}; choose from {known}")
        if self.num_prompts < 2:
            raise ValueError(
                f"num_prompts {self.num_prompts}: the random baseline needs another prompt's "
                "picture; ask for 2 or more"
            )
        names = [setting.name for setting in self.sweep]
        if len(set(names)) < len(names):
            raise ValueError(f"two settings of the sweep have one name: {names}")
        for name in ("sweep_prompts", "num_samples", "num_training_documents", "batch_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be 1 or more, got {getattr(self, name)}")
