"""Parquet files, row group by row group: caption pairs with the pictures inside."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from unimm.data.formats.base import FormatConfig, Samples, parse_record
from unimm.data.formats.captions import caption_pair
from unimm.data.raw import RawDocument, Skipped, picture_of, text_of


@dataclass(frozen=True, kw_only=True)
class ParquetFormat(FormatConfig):
    """Rows of a picture and a text, as datasets of the Hub hold them.

    Attributes:
        image_column: bytes, ``{"bytes", "path"}`` or a path.
        text_column: the caption.
    """

    image_column: str = "image"
    text_column: str = "text"

    def open(self, path: Path) -> Samples:
        """Read the file's footer."""
        folder = self.image_folder(path)

        def parse(row: Any) -> RawDocument:
            picture = picture_of(row[self.image_column], folder)
            return caption_pair(text_of(row[self.text_column]), picture)

        return ParquetRows(path, (self.image_column, self.text_column), parse)


class ParquetRows:
    """Rows of a file by number; one row group is held at a time, and a broken one is skipped.

    Args:
        path: the file.
        columns: what is read.
        parse: turns a row, column -> value, into a document; may raise as that of ``JsonLines``.
    """

    def __init__(
        self, path: Path, columns: Sequence[str], parse: Callable[[Any], RawDocument]
    ) -> None:
        parquet = pyarrow_parquet()
        self._columns, self._parse = tuple(columns), parse
        try:
            self._file = parquet.ParquetFile(path)
        except (OSError, ValueError) as error:  # pyarrow's own errors are of these classes
            raise Skipped("unreadable file", str(error)) from None
        missing = set(columns) - set(self._file.schema_arrow.names)
        if missing:
            raise Skipped("unreadable file", f"no column {', '.join(sorted(missing))} in {path}")
        metadata = self._file.metadata
        sizes = [metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)]
        self._bounds = np.concatenate([[0], np.cumsum(sizes, dtype=np.int64)])
        self._held: tuple[int, Any] = (-1, None)

    def __len__(self) -> int:
        return int(self._bounds[-1])

    def __getitem__(self, number: int) -> RawDocument:
        group = int(np.searchsorted(self._bounds, number, side="right")) - 1
        if self._held[0] != group:
            self._held = (group, self._read(group))
        table = self._held[1]
        if table is None:
            raise Skipped("unreadable file", f"row group {group}")
        row = table.slice(number - int(self._bounds[group]), 1).to_pylist()[0]
        return parse_record(self._parse, row)

    def _read(self, group: int) -> Any:
        try:
            return self._file.read_row_group(group, columns=list(self._columns))
        except (OSError, ValueError):
            return None


def pyarrow_parquet() -> Any:
    """The library, if it is installed; ``datasets`` brings it along."""
    try:
        import pyarrow.parquet as parquet
    except ImportError:
        raise ValueError("parquet files need pyarrow: pip install 'unimm[train]'") from None
    return parquet
