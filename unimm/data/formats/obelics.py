"""OBELICS (Laurencon et al., 2023): web documents in parquet, ``images`` and ``texts`` in step."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unimm.data.formats.base import FormatConfig, Samples
from unimm.data.formats.downloads import find_download
from unimm.data.formats.parquet import ParquetRows
from unimm.data.raw import RawDocument, RawPicture, Skipped, picture_of, text_of


@dataclass(frozen=True, kw_only=True)
class ObelicsFormat(FormatConfig):
    """Rows with lists ``images`` and ``texts`` of one length; at each place one of them is null.

    The release holds URLs: download them with ``img2dataset`` (``output_format=files``) into the
    folder ``images``. Pictures inside the rows, as bytes or ``{"bytes", "path"}``, are read too.
    """

    def open(self, path: Path) -> Samples:
        """Read the file's footer."""
        folder = self.image_folder(path)
        is_downloaded = bool(self.images)

        def part(image: Any, text: Any) -> str | RawPicture:
            if (image is None) == (text is None):
                raise Skipped("wrong fields", "a place needs either an image or a text")
            if image is None:
                return text_of(text)
            picture = picture_of(image, folder)
            if picture.missing and is_downloaded:
                return find_download(folder, image)
            return picture

        def parse(row: Any) -> RawDocument:
            pairs = zip(row["images"], row["texts"], strict=True)
            return RawDocument(parts=[part(*pair) for pair in pairs], kind="web")

        return ParquetRows(path, ("images", "texts"), parse)
