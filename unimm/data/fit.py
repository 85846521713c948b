"""Make documents fit a run's rows before they are packed, and say what that took."""

import logging

from unimm.data.corpus import Corpus, PictureSizes
from unimm.data.loader import Packing

logger = logging.getLogger(__name__)


def fit_rows(corpus: Corpus, packing: Packing) -> None:
    """Cut documents that are longer than a row at page bounds; what was done is logged.

    Raises:
        ValueError: nothing is left.
    """
    sizes = [
        PictureSizes.of(objective, corpus.blank(objective.schedule), packing.special)
        for objective in packing.objectives.values()
    ]
    cut = corpus.cut(packing.row_length, sizes)
    if cut.documents:
        logger.warning(
            "%d documents are longer than a row of %d: cut into %d; %d pages longer than a row "
            "left out",
            cut.documents,
            packing.row_length,
            cut.pieces,
            cut.pages,
        )
    if corpus.num_documents == 0:
        raise ValueError(
            f"no document fits a row of {packing.row_length} positions: raise data.row_length"
        )
