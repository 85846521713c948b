"""What ``eval/score_stories.py`` runs."""

from dataclasses import dataclass, field

from unimm.data.world.splits import Split
from unimm.evaluation.story_sets import CONTROLS, SETS, WRITTEN
from unimm.nn.sampling import SamplingConfig


@dataclass(frozen=True, kw_only=True)
class StorySampling:
    """How pictures are drawn.

    Attributes:
        name: what the setting is called in tables.
        first_page: page 1; page 2 where page 1 is given follows ``later_pages``.
        later_pages: pages that follow another.
        write_on: the model may write on behind given texts before it draws.
    """

    name: str = "default"
    first_page: SamplingConfig = field(
        default_factory=lambda: SamplingConfig(temperature=0.9, top_k=100, guidance_scale=2.0)
    )
    later_pages: SamplingConfig = field(
        default_factory=lambda: SamplingConfig(temperature=0.9, top_k=100, guidance_scale=2.0)
    )
    write_on: bool = False


@dataclass(frozen=True, kw_only=True)
class StoryRunConfig:
    """One run of the story scores.

    Attributes:
        model: shipped name, folder or Hub id.
        objective: of the model that draws; empty is its first.
        detector: folder of the judge.
        output: folder of the run; see ``unimm.evaluation.story_folder``.
        ledger: folder of the ledger; empty writes none.
        name: of the ledger.
        splits: validation (seen combinations) and held-out.
        sets: which sets of stories; see ``unimm.evaluation.story_sets``.
        controls: which controls; likewise.
        num_stories: of each set and split.
        num_training_documents: among whose pictures the nearest neighbour is looked for.
        training_seed: of those documents.
        batch_size: stories drawn at once; of pages that are drawn alone, four times as many.
        seed: of the stories' world and of the drawing.
        sampling: the setting that is scored on all sets.
        sweep: settings that are compared on a few validation stories first; the sets of the
            comparison are ``sweep_sets``. The best by all-right later pages (all of its sets
            together) replaces ``sampling``.
        sweep_stories: stories of a set in the comparison, from another seed than the scored ones.
        sweep_sets: sets in the comparison.
        max_rows: stories of each set in the report's grids.
        device: "cpu" or "cuda"; empty takes the GPU where there is one.
    """

    model: str = "storyworld"
    objective: str = ""
    detector: str = "unimm/assets/models/detector"
    output: str = "runs/story_scores"
    ledger: str = ""
    name: str = "stories"
    splits: tuple[str, ...] = ("validation", "heldout")
    sets: tuple[str, ...] = SETS
    controls: tuple[str, ...] = tuple(CONTROLS)
    num_stories: int = 128
    num_training_documents: int = 8_000
    training_seed: int = 0
    batch_size: int = 128
    seed: int = 4242
    sampling: StorySampling = field(default_factory=StorySampling)
    sweep: tuple[StorySampling, ...] = ()
    sweep_stories: int = 48
    sweep_sets: tuple[str, ...] = ("words", "pair")
    max_rows: int = 10
    device: str = ""

    def __post_init__(self) -> None:
        for name in (*self.sets, *self.sweep_sets):
            if name not in SETS:
                raise ValueError(f"unknown set of stories {name!r}; known: {SETS}")
        if WRITTEN in self.sweep_sets:
            raise ValueError(f"settings are compared on given texts; leave {WRITTEN!r} out")
        for name in self.controls:
            if name not in CONTROLS:
                raise ValueError(f"unknown control {name!r}; known: {[*CONTROLS]}")
        known = [split.name.lower() for split in Split]
        for split in self.splits:
            if split not in known:
                raise ValueError(f"unknown split {split!r}; known: {known}")
        if self.num_stories < 2 or self.batch_size < 1:
            raise ValueError(
                f"num_stories {self.num_stories}, batch_size {self.batch_size}: the control swaps "
                "first pages, so score 2 stories or more, 1 or more at once"
            )
