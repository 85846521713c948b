"""Formats of documents by name: a new one is a file here and a line in ``FORMATS``."""

from unimm.data.formats.base import FormatConfig
from unimm.data.formats.captions import CaptionFormat
from unimm.data.formats.comm import CommFormat
from unimm.data.formats.jsonl import JsonlFormat
from unimm.data.formats.mmc4 import Mmc4Format
from unimm.data.formats.obelics import ObelicsFormat
from unimm.data.formats.parquet import ParquetFormat
from unimm.data.formats.storystream import StoryStreamFormat
from unimm.data.formats.webdataset import WebdatasetFormat

FORMATS: dict[str, type[FormatConfig]] = {
    "jsonl": JsonlFormat,
    "captions": CaptionFormat,
    "webdataset": WebdatasetFormat,
    "parquet": ParquetFormat,
    "obelics": ObelicsFormat,
    "mmc4": Mmc4Format,
    "comm": CommFormat,
    "storystream": StoryStreamFormat,
}

__all__ = ["FORMATS", "FormatConfig"]
