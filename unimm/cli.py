"""The console command: ``unimm story | image | caption | continue``."""

import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro
from tyro.conf import OmitArgPrefixes, Positional, UseAppendAction, subcommand

if TYPE_CHECKING:  # torch takes seconds to import: --help must not wait for it
    from unimm.generation import Story
    from unimm.pipeline import Pipeline

OPENING = "The picture shows"  # so that the model describes a picture and does not ask about it
PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff")


@dataclass(frozen=True, kw_only=True)
class Shared:
    """Options of all commands."""

    model: str = "storyworld"
    """A shipped model, a model folder, or owner/name of the Hugging Face Hub."""
    seed: int | None = None
    """Of all randomness; by default one is drawn, and told."""
    device: str | None = None
    """By default the GPU if there is one."""
    json: bool = False
    """Print one JSON object to stdout: texts, files, settings, seconds."""


@dataclass(frozen=True, kw_only=True)
class Drawing:
    """How pictures are drawn."""

    guidance_scale: float | None = None
    """How strongly pictures follow the text; 1 is off. By default the model's."""
    image_guidance_scale: float | None = None
    """How strongly pictures follow the earlier pictures; 1 is off."""
    temperature: float | None = None
    """Of the pictures; 0 always draws the likeliest."""
    objective: str | None = None
    """Which of the model's ways of drawing; by default its first."""
    num_steps: int | None = None
    """Of pictures that are drawn in as many steps as one likes, such as masked ones."""


@dataclass(frozen=True, kw_only=True)
class StoryCommand:
    """Write and draw a story.

    unimm story "Mia the fox finds a red balloon." --num-images 4 --seed 1

    unimm story "Mia is a fox." "Tom is a blue bear."          # two stories: story_1.html ...

    unimm story --page "Mia is a fox." --page "She finds a red balloon."      # your own words

    unimm story "Mia is a fox." --num-images 40 --window-pages 4     # longer than the context
    """

    prompt: Positional[tuple[str, ...]] = ()
    """How the story begins; several begin several stories."""
    page: Annotated[tuple[str, ...], UseAppendAction] = ()
    """Text of a page, instead of the model's own; give it once a page."""
    write_on: bool = False
    """Let the model write on behind each --page: it may say again who is who before it draws."""
    num_images: int | None = None
    """Pictures of the story; by default the model ends it."""
    window_pages: int | None = None
    """Newest pages that a long story remembers whole, beside its first; by default all."""
    output: Path = Path("story.html")
    """A .html page, or a .json file beside which the pictures are put."""
    drawing: Drawing = field(default_factory=Drawing)
    shared: Shared = field(default_factory=Shared)


@dataclass(frozen=True, kw_only=True)
class ImageCommand:
    """Draw a picture of a text, or change a picture.

    unimm image "A blue fox with a crown in the snow." --output fox.png

    unimm image "Make the fox red." --picture fox.png --output red.png
    """

    prompt: Positional[tuple[str, ...]]
    """What to draw, or what to change; several draw several pictures."""
    picture: Path | None = None
    """A picture to change."""
    output: Path = Path("image.png")
    """File of the picture; of several, image_1.png, image_2.png ..."""
    drawing: Drawing = field(default_factory=Drawing)
    shared: Shared = field(default_factory=Shared)


@dataclass(frozen=True, kw_only=True)
class CaptionCommand:
    """Say what a picture shows, or answer a question about it.

    unimm caption photo.jpg

    unimm caption photo.jpg --question "What colour is the fox?"
    """

    picture: Positional[tuple[Path, ...]]
    """Files of pictures, a line of text for each."""
    question: str = ""
    """Asked about every picture, instead of a description."""
    temperature: float = 0.0
    """Of the text; 0 always says the likeliest."""
    shared: Shared = field(default_factory=Shared)


@dataclass(frozen=True, kw_only=True)
class ContinueCommand:
    """Go on from texts and pictures of your own, in any order.

    unimm continue "This is Mia." mia.jpg --num-images 3

    unimm continue "This is Mia." mia.jpg "Mia walks to the beach." beach.png "At night,"
    """

    part: Positional[tuple[str, ...]]
    """Texts, and files of pictures, in reading order."""
    num_images: int | None = None
    """Pictures to draw; by default the model ends the story."""
    output: Path = Path("story.html")
    """A .html page, or a .json file beside which the pictures are put."""
    drawing: Drawing = field(default_factory=Drawing)
    shared: Shared = field(default_factory=Shared)


Command = (
    Annotated[StoryCommand, subcommand("story")]
    | Annotated[ImageCommand, subcommand("image")]
    | Annotated[CaptionCommand, subcommand("caption")]
    | Annotated[ContinueCommand, subcommand("continue")]
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Returns:
        The exit code: 0 when all went well, 1 when something given cannot be used, 130 when
        stopped by Ctrl-C. A mistake in the command line itself exits with 2.
    """
    start = time.monotonic()
    command: Any = tyro.cli(
        OmitArgPrefixes[Command],  # type: ignore[valid-type]
        args=None if arguments is None else list(arguments),
        prog="unimm",
        description="Write and draw with one model: stories, pictures, captions.",
    )
    try:
        told = _RUN[type(command)](command)
    except KeyboardInterrupt:
        print("unimm: stopped", file=sys.stderr)
        return 130
    except (ValueError, OSError) as error:  # a lost connection is an OSError
        print(f"unimm: {error}", file=sys.stderr)
        return 1
    seconds = round(time.monotonic() - start, 1)
    if command.shared.json:
        print(json.dumps(told | {"seconds": seconds}, ensure_ascii=False))
        return 0
    print("\n".join(told["lines"]))
    print(f"{seconds} s", file=sys.stderr)
    return 0


def _story(command: StoryCommand) -> dict[str, Any]:
    if command.page and len(command.prompt) > 1:
        raise ValueError("--page tells one story: give one beginning, or none")
    options: dict[str, Any] = {"num_images": command.num_images}
    if command.page:
        options |= {"page_texts": [list(command.page)], "write_on": command.write_on}
    if command.window_pages:
        from unimm.generation import CachePolicy

        options["cache_policy"] = CachePolicy(window_pages=command.window_pages)
    return _write_stories(command, [[text] for text in command.prompt or ("",)], options)


def _continue(command: ContinueCommand) -> dict[str, Any]:
    if not command.part:
        raise ValueError("give texts or files of pictures: unimm continue 'This is Mia.' mia.jpg")
    pieces = [_piece(part) for part in command.part]
    return _write_stories(command, [pieces], {"num_images": command.num_images})


def _piece(part: str) -> str | Path:
    """A text, or the file of a picture; one that is missing is no text."""
    return Path(part) if part.lower().endswith(PICTURES) else part


def _write_stories(
    command: StoryCommand | ContinueCommand, prompts: list[list[Any]], options: dict[str, Any]
) -> dict[str, Any]:
    _check_suffix(command.output, (".html", ".json"))
    options |= {"num_previews": 4} if command.output.suffix == ".html" else {}
    stories = _generate(command.shared, prompts, **vars(command.drawing), **options)
    entries, lines = [], []
    for number, story in enumerate(stories, start=1):
        path = story.save(_numbered(command.output, number, len(stories)))
        lines.append(f"{path}: {len(story.images)} pictures, seed {story.settings['seed']}")
        entry = {"file": str(path), "texts": story.texts, "num_images": len(story.images)}
        entries.append(entry | {"settings": story.settings})
    return {"stories": entries} if command.shared.json else {"lines": lines}


def _image(command: ImageCommand) -> dict[str, Any]:
    _check_suffix(command.output, PICTURES)
    if not command.prompt:
        raise ValueError("say what to draw: unimm image 'A blue fox.'")
    given = "" if command.picture is None else command.picture
    texts = [[text] for text in command.prompt]
    stories = _generate(
        command.shared, [[given]] * len(texts), page_texts=texts, **vars(command.drawing)
    )
    entries, lines = [], []
    for number, story in enumerate(stories, start=1):
        path = _numbered(command.output, number, len(stories))
        path.parent.mkdir(parents=True, exist_ok=True)
        story.images[-1].save(path)
        lines.append(f"{path}: seed {story.settings['seed']}")
        entries.append({"file": str(path), "settings": story.settings})
    return {"images": entries} if command.shared.json else {"lines": lines}


def _check_suffix(path: Path, known: Sequence[str]) -> None:
    """Refuse before minutes of work what could not be saved."""
    if path.suffix.lower() not in known:
        raise ValueError(f"--output must end in {', '.join(known)}, got {path.name!r}")


def _caption(command: CaptionCommand) -> dict[str, Any]:
    if not command.picture:
        raise ValueError("name the file of a picture: unimm caption photo.jpg")
    asked = command.question or OPENING
    prompts = [[path, asked] for path in command.picture]
    stories = _generate(command.shared, prompts, num_images=0, text_temperature=command.temperature)
    texts = [story.texts[-1] for story in stories]
    if command.question:
        texts = [text.removeprefix(asked).strip() for text in texts]
    if not command.shared.json:
        return {"lines": texts}
    return {
        "captions": [
            {"file": str(path), "text": text, "settings": story.settings}
            for path, text, story in zip(command.picture, texts, stories, strict=True)
        ]
    }


def _generate(shared: Shared, prompts: list[list[Any]], **options: Any) -> "list[Story]":
    with _progress(shared.model) as (loaded, step):
        import unimm

        pipeline: Pipeline = unimm.load_pipeline(shared.model, device=shared.device)
        loaded()
        stories: Any = unimm.generate(pipeline, prompts, seed=shared.seed, progress=step, **options)
        return stories


@contextmanager
def _progress(model: str) -> Iterator[tuple[Callable[[], None], Callable[[int, int], None]]]:
    """Show on stderr what is being done; stdout stays for what was asked."""
    from rich.console import Console
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    console = Console(stderr=True)
    # Where nobody watches, a bar would only leave empty lines.
    with Progress(
        *columns, console=console, transient=True, disable=not console.is_terminal
    ) as bar:
        task = bar.add_task(f"loading {model}")
        yield (
            lambda: bar.update(task, description="reading"),
            lambda page, count: bar.update(task, description=f"page {page + 1}, {count} tokens"),
        )


def _numbered(path: Path, number: int, count: int) -> Path:
    return path if count == 1 else path.with_name(f"{path.stem}_{number}{path.suffix}")


_RUN: dict[type, Callable[[Any], dict[str, Any]]] = {
    StoryCommand: _story,
    ImageCommand: _image,
    CaptionCommand: _caption,
    ContinueCommand: _continue,
}

if __name__ == "__main__":
    sys.exit(main())
