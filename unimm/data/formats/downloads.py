"""Pictures that img2dataset downloaded, found by their URL."""

from functools import lru_cache
from pathlib import Path

from unimm.data.formats.parquet import pyarrow_parquet
from unimm.data.raw import RawPicture


def find_download(folder: Path, url: str) -> RawPicture:
    """Find a picture in a folder that img2dataset wrote with ``output_format=files``.

    Args:
        folder: of ``00000.parquet`` (columns ``url, key, status``) and ``00000/<key>.jpg``, ...
        url: of the picture.
    """
    path = _downloads(folder).get(url)
    return RawPicture(missing="URL only") if path is None else RawPicture(path=path)


@lru_cache(maxsize=4)
def _downloads(folder: Path) -> dict[str, Path]:
    """URL -> file, of what was downloaded."""
    found: dict[str, Path] = {}
    for table in sorted(folder.glob("*.parquet")):
        columns = pyarrow_parquet().read_table(table, columns=["url", "key", "status"])
        for row in columns.to_pylist():
            if row["status"] == "success":
                found[row["url"]] = folder / table.stem / f"{row['key']}.jpg"
    return found
