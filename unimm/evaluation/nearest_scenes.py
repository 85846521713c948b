"""Nearest neighbours: the training picture that fits a prompt best.

Looking pictures up is no drawing. It solves prompts whose combination training has shown and none
of the others, so it tells which scores mean something.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence

import numpy as np

from unimm.data.world.atoms import Atom, canonical_atom, scene_atoms
from unimm.data.world.scene import Scene
from unimm.data.world.splits import Split
from unimm.data.world.tasks import ScenePart, document_at


def training_scenes(num_documents: int, *, seed: int = 0) -> list[Scene]:
    """The scenes of the first training documents: stories, captions either way and edits."""
    return [
        part.scene
        for index in range(num_documents)
        for part in document_at(seed, index, split=Split.TRAIN).parts
        if isinstance(part, ScenePart)
    ]


class NearestScenes:
    """Scenes that can be asked for by what they show.

    Args:
        scenes: to look among.

    Raises:
        ValueError: there are none.
    """

    def __init__(self, scenes: Sequence[Scene]) -> None:
        if not scenes:
            raise ValueError("there are no scenes to look among; ask for more training documents")
        self.scenes = list(scenes)
        self._num_figures = np.array([len(scene.placed) for scene in scenes])
        postings: dict[Atom, list[int]] = defaultdict(list)
        for number, scene in enumerate(scenes):
            for atom in {canonical_atom(atom) for atom in scene_atoms(scene)}:
                postings[atom].append(number)
        self._postings = {atom: np.array(numbers) for atom, numbers in postings.items()}

    def nearest(self, atoms: Iterable[Atom], *, num_figures: int) -> Scene:
        """The scene of which most of a caption is true.

        Args:
            atoms: what the caption says.
            num_figures: how many it names: among equals, the scene nearest to that is taken, and
                then the first.
        """
        hits = np.zeros(len(self.scenes))
        for atom in {canonical_atom(atom) for atom in atoms}:
            if atom in self._postings:
                hits[self._postings[atom]] += 1
        unwanted = np.abs(self._num_figures - num_figures) / 1000
        return self.scenes[int((hits - unwanted).argmax())]
