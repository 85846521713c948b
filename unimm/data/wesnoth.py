"""Installed campaigns of Battle for Wesnoth as illustrated stories: a document a scenario.

Narration comes with its background picture, dialogue with the speaker's portrait. Texts and
pictures are under the GPL, version 2 or later: install them, never commit them.
"""

import html
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from unimm.data.wml import Macro, Tag, expand, parse, take_macros

_SPEAKERS = {"narrator", "unit", "second_unit", "student", "Unknown", ""}  # these are no names
_SUFFIXES = (".png", ".jpg", ".webp")


@dataclass(frozen=True, kw_only=True)
class Page:
    """What is said or told at once.

    Attributes:
        kind: ``narration`` or ``dialogue``.
        text: with the speaker's name, if one speaks.
        picture: file of the background or portrait, if it is known.
    """

    kind: str
    text: str
    picture: Path | None


@dataclass(frozen=True, kw_only=True)
class Scenario:
    """A story.

    Attributes:
        campaign: name of its folder.
        name: for people.
        pages: in the order of the file.
        left_out: cause -> texts that are no sentences.
    """

    campaign: str
    name: str
    pages: list[Page]
    left_out: Counter[str] = field(default_factory=Counter)


def read_campaigns(data: Path) -> Iterator[Scenario]:
    """Read all scenarios that say anything.

    Args:
        data: the game's data folder, such as ``/usr/share/games/wesnoth/1.16/data``.

    Raises:
        ValueError: no campaign is installed there.
    """
    campaigns = sorted(path.parent for path in data.glob("campaigns/*/_main.cfg"))
    if not campaigns:
        raise ValueError(f"no campaign in {data}/campaigns; install one (docs/data.md)")
    core = _macros_of(sorted((data / "core/macros").rglob("*.cfg")))
    kinds = _unit_kinds(sorted((data / "core/units").rglob("*.cfg")), core)
    for campaign in campaigns:
        files = sorted(campaign.rglob("*.cfg"))
        macros = core | _macros_of(files)
        units = kinds | _unit_kinds(sorted((campaign / "units").rglob("*.cfg")), macros)
        trees = [_read(path, macros) for path in files]
        portraits = _portraits(trees, units)
        folders = [campaign / "images", data / "core/images", data.parent / "images"]
        for tree in trees:
            for tag in tree.walk():
                if tag.name == "scenario":
                    scenario = _scenario(tag, campaign.name, portraits, folders)
                    if scenario.pages:
                        yield scenario


def to_record(scenario: Scenario, names: dict[Path, str]) -> dict[str, Any]:
    """Make a document of the project's JSONL format.

    A picture stands after its text, unless the page before shows the same one.

    Args:
        scenario: the story.
        names: picture file -> its name beside the document; new ones are added.
    """
    parts: list[dict[str, Any]] = [{"text": f"{scenario.name}."}] if scenario.name else []
    shown: Path | None = None
    for page in scenario.pages:
        parts.append({"text": page.text})
        if page.picture is not None and page.picture != shown:
            name = f"images/{len(names):04d}{page.picture.suffix}"
            parts.append({"image": names.setdefault(page.picture, name)})
        shown = page.picture
    truth = {"campaign": scenario.campaign, "scenario": scenario.name}
    return {"kind": "story", "parts": parts, "truth": truth}


def _read(path: Path, macros: dict[str, Macro]) -> Tag:
    text, _ = take_macros(path.read_text(encoding="utf-8", errors="replace"))
    return parse(expand(text, macros))


def _macros_of(paths: list[Path]) -> dict[str, Macro]:
    found: dict[str, Macro] = {}
    for path in paths:
        found |= take_macros(path.read_text(encoding="utf-8", errors="replace"))[1]
    return found


def _unit_kinds(paths: list[Path], macros: dict[str, Macro]) -> dict[str, str]:
    """Kind of unit -> its portrait."""
    found: dict[str, str] = {}
    for path in paths:
        for tag in _read(path, macros).walk():
            if tag.name == "unit_type" and "profile" in tag.attributes:
                found[tag.attributes.get("id", "")] = tag.attributes["profile"]
    return found


def _portraits(trees: list[Tag], kinds: dict[str, str]) -> dict[str, str]:
    """Speaker -> portrait: that of the unit by name, else that of its kind."""
    found: dict[str, str] = {}
    for tree in trees:
        for tag in tree.walk():
            name, profile = tag.attributes.get("id"), tag.attributes.get("profile")
            profile = profile or kinds.get(tag.attributes.get("type", ""))
            if name and profile:
                found.setdefault(name, profile)
    return found


def _scenario(tag: Tag, campaign: str, portraits: dict[str, str], folders: list[Path]) -> Scenario:
    pages: list[Page] = []
    left_out: Counter[str] = Counter()
    for part in tag.walk():
        if part.name == "part":
            kind, text, speaker = "narration", part.attributes.get("story", ""), ""
            pictures = [part.attributes.get("background", "")]
            layers = (child for child in part.children if child.name == "background_layer")
            pictures += [layer.attributes.get("image", "") for layer in layers]
        elif part.name == "message":
            kind, text = "dialogue", part.attributes.get("message", "")
            speaker = part.attributes.get("speaker", part.attributes.get("id", ""))
            pictures = [part.attributes.get("image", ""), portraits.get(speaker, "")]
        else:
            continue
        text = _clean(text)
        if not text or "$" in text:
            left_out["a variable" if text else "no text"] += 1
            continue
        if speaker not in _SPEAKERS and "," not in speaker:
            text = f"{speaker}: {text}"
        found = (_find(name, folders) for name in pictures)
        picture = next((path for path in found if path is not None), None)
        pages.append(Page(kind=kind, text=text, picture=picture))
    name = _clean(tag.attributes.get("name", ""))
    return Scenario(campaign=campaign, name=name, pages=pages, left_out=left_out)


def _clean(text: str) -> str:
    """Plain sentences: no markup, single spaces."""
    return " ".join(html.unescape(re.sub(r"<[^>]*>", "", text)).split())


def _find(name: str, folders: list[Path]) -> Path | None:
    """The file of a picture; image functions (``~SCALE(...)``) are not applied."""
    name = name.split("~")[0].strip()
    if not name.endswith(_SUFFIXES) or not ("portrait" in name or "story/" in name):
        return None  # maps, icons and units are no illustrations
    candidates = (folder / name for folder in folders)
    return next((path for path in candidates if path.is_file()), None)
