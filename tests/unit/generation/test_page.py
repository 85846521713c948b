import base64
import io
import re
from html.parser import HTMLParser

from PIL import Image

from unimm.generation.page import story_page

PICTURE = Image.new("RGB", (16, 16), "teal")
VOID = {"meta", "img", "br"}


class Checker(HTMLParser):
    """Follows open tags and collects what is shown."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.text = ""
        self.images: list[dict[str, str | None]] = []

    def handle_starttag(self, tag, attrs):
        if tag == "img":
            self.images.append(dict(attrs))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "style" not in self.open:
            self.text += data


def read(parts, settings=None) -> Checker:
    checker = Checker()
    checker.feed(story_page(parts, settings or {}))
    assert checker.open == []
    return checker


def test_page_shows_texts_and_pictures_and_needs_no_other_file():
    page = story_page(["Mia runs. She is glad.", PICTURE, "She sleeps.", PICTURE], {})
    assert not re.search(r"(src|href)=\"(?!data:)|url\(|@import|<script", page)
    checker = read(["Mia runs. She is glad.", PICTURE, "She sleeps.", PICTURE])
    assert "Mia runs. She is glad." in checker.text and "She sleeps." in checker.text
    assert len(checker.images) == 2 and checker.images[1]["alt"] == "She sleeps."


def test_small_pictures_are_enlarged_inside_the_page():
    source = read(["a", PICTURE]).images[0]["src"]
    assert source is not None
    data = base64.b64decode(source.removeprefix("data:image/png;base64,"))
    with Image.open(io.BytesIO(data)) as picture:
        assert picture.size == (512, 512)
        assert picture.getpixel((100, 100)) == (0, 128, 128)


def test_text_is_never_markup():
    checker = read(['<script>alert(1)</script> & "x"', PICTURE], {"prompt": ["<b>bold"]})
    assert "<script>alert(1)</script>" in checker.text
    assert "<b>bold" in checker.text


def test_title_is_the_first_sentence_cut_when_long():
    assert read(["Mia runs. She is glad."]).text.strip().startswith("Mia runs\n")
    long = "Once upon a time there was a very small fox who lived in a very large house alone."
    title = read([long]).text.strip().splitlines()[0]
    assert len(title) < 70 and title.endswith("\N{HORIZONTAL ELLIPSIS}")
    assert read([PICTURE]).text.strip().startswith("A story")


def test_footer_tells_how_the_story_was_made():
    settings = {
        "prompt": ["Mia"],
        "model": "storyworld",
        "seed": 7,
        "later_pages": {"temperature": 0.8, "top_k": 100, "top_p": 1.0, "guidance_scale": 1.5},
    }
    text = read(["Mia.", PICTURE], settings).text
    assert "storyworld" in text and "seed 7" in text
    assert "later pictures" in text and "temperature 0.8, top-k 100, guidance 1.5" in text


def test_a_strip_shows_how_a_picture_was_drawn():
    moments = [Image.new("RGB", (16, 16), colour) for colour in ("white", "grey")]
    page = story_page(["a", PICTURE, "b", PICTURE], {}, [[], moments])
    first, second = page.split("<section")[1:3]
    assert first.count("<img") == 1 and second.count("<img") == 3
    assert second.index('alt="b"') < second.index('class="strip"')


def test_large_photos_are_made_smaller():
    source = read([Image.new("RGB", (3000, 20), "teal")]).images[0]["src"]
    assert source is not None
    data = base64.b64decode(source.removeprefix("data:image/png;base64,"))
    with Image.open(io.BytesIO(data)) as picture:
        assert picture.size == (1024, 7)


def test_odd_stories_have_pages_too():
    assert len(read([PICTURE, PICTURE, "end"]).images) == 2
    assert read([]).images == []
