"""MMC4 (Zhu et al., 2023): sentences, and pictures matched to them."""

from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unimm.data.formats.base import FormatConfig, JsonLines, PageOrder, Samples
from unimm.data.formats.downloads import find_download
from unimm.data.raw import RawDocument, RawPicture, text_of


@dataclass(frozen=True, kw_only=True)
class Mmc4Format(FormatConfig):
    """Lines with ``text_list`` and ``image_info: [{image_name, matched_text_index, raw_url}]``.

    Pictures are files ``images/<image_name>``, as the release's ``download_images.py`` writes them
    (by default into ``<shard>_images`` beside the shard), or downloads of ``img2dataset``. Unzip
    the shards first.

    Attributes:
        order: whether a sentence stands before or after its pictures.
    """

    order: PageOrder = "text_first"

    def image_folder(self, path: Path) -> Path:
        """Where the release's downloader puts the pictures of a shard."""
        return Path(self.images) if self.images else path.parent / f"{path.stem}_images"

    def open(self, path: Path) -> Samples:
        """Index the lines."""
        folder = self.image_folder(path)

        def picture(info: Any) -> RawPicture:
            file = folder / text_of(info["image_name"])
            return (
                RawPicture(path=file) if file.is_file() else find_download(folder, info["raw_url"])
            )

        def parse(record: Any) -> RawDocument:
            matched: dict[int, list[RawPicture]] = defaultdict(list)
            sentences = [text_of(sentence) for sentence in record["text_list"]]
            for info in record["image_info"]:
                number = info["matched_text_index"]
                sentences[number]  # an index out of range is a wrong field
                matched[number].append(picture(info))
            parts: list[str | RawPicture] = []
            for number, sentence in enumerate(sentences):
                page = [sentence, *matched[number]]
                parts += page if self.order == "text_first" else [*page[1:], sentence]
            return RawDocument(parts=parts, kind="web")

        return JsonLines(path, parse)
