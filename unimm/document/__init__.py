"""Documents, their layout in one sequence, packing, and the one attention rule.

Legend of shapes: ``B`` rows of a batch, ``L`` row length, ``n`` positions of a segment or document,
``N`` positions that one objective reads in a batch, ``M`` pictures, ``h, w`` a picture's code
grid.

The way of a document: parts -> ``layout_document`` (segments in a row, positions, labels) ->
``pack`` (several documents to a row, several rows to a ``Batch``) -> ``attention_rule``.
"""

from unimm.document.layout import (
    HEAD_NONE,
    HEAD_TEXT,
    IGNORE,
    NO_CODE,
    NULL_CODE,
    Dropped,
    Ids,
    ImageLayout,
    Layout,
    Segment,
    image_positions,
    layout_document,
    read_only,
    sample_dropped,
)
from unimm.document.packing import Batch, Slots, mix_seed, pack
from unimm.document.parts import Document, ImageTokens, Part, SpecialIds
from unimm.document.rule import Spans, attention_rule, count_visible, may_see, visible_spans

__all__ = [
    "HEAD_NONE",
    "HEAD_TEXT",
    "IGNORE",
    "NO_CODE",
    "NULL_CODE",
    "Batch",
    "Document",
    "Dropped",
    "Ids",
    "ImageLayout",
    "ImageTokens",
    "Layout",
    "Part",
    "Segment",
    "Slots",
    "Spans",
    "SpecialIds",
    "attention_rule",
    "count_visible",
    "image_positions",
    "layout_document",
    "may_see",
    "mix_seed",
    "pack",
    "read_only",
    "sample_dropped",
    "visible_spans",
]
