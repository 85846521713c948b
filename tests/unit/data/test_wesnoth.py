"""Campaigns of a made-up game become documents: macros, portraits, narration, what is left out."""

import json
from pathlib import Path

import pytest
from PIL import Image
from run_script import run_script

from unimm.data.files import FileSource, PictureRule
from unimm.data.formats.jsonl import JsonlFormat
from unimm.data.wesnoth import read_campaigns
from unimm.data.wml import Macro, expand, parse, take_macros

SCENARIO = """\
#textdomain test
[scenario]
    name=_ "The Well"  # a comment
    [story]
        [part]
            background=story/well.jpg
            story=_ "Once a <i>well</i> stood
in a ""village""." + _ " It was old &amp; deep."
        [/part]
        [part]
            background="story/well.jpg~SCALE(10,10)"
            story=_ "Nobody drank from it."
        [/part]
        [part]
            {TOLD ( _ "A map shows the way.")}
        [/part]
    [/story]
    [side]
        {HERO}
#ifdef EASY
        gold=100
#else
        gold=50
#endif
    [/side]
    [event]
        name=start
        {SAYS Ada _"I am thirsty."}
        [message]
            speaker=Bo
            message=_ "So am I, $unit.name|!"
        [/message]
        [message]
            speaker=Bo
            message=_ "Let us dig {UNKNOWN THING}."
        [/message]
        [if]
            [then]
                {SAYS narrator ( _ "They dig.")}
            [/then]
        [/if]
#ifdef EASY
        {SAYS Ada _"Easy."}
#else
        {SAYS Ada _"Hard."}
#endif
    [/event]
[/scenario]
"""
MACROS = """\
#define HERO
    id=Ada
    type=Digger
    profile=portraits/ada.png
#enddef
#define TOLD TEXT
    story={TEXT}
    {BIGMAP}
#enddef
#define BIGMAP
    background=maps/big.png
    {BIGMAP} # itself: the game knows an older one
#enddef
"""
CORE = """\
#define SAYS WHO WHAT
    [message]
        speaker={WHO}
        message={WHAT}
    [/message]
#enddef
"""


@pytest.fixture
def data(tmp_path) -> Path:
    root = tmp_path / "game/data"
    campaign = root / "campaigns/Wells"
    files = {
        root / "core/macros/talk.cfg": CORE,
        root / "core/units/digger.cfg": "[unit_type]\nid=Miner\nprofile=portraits/miner.png\n",
        campaign / "_main.cfg": '[campaign]\nname=_ "Wells"\n[/campaign]',
        campaign / "utils/macros.cfg": MACROS,
        campaign / "utils/people.cfg": "[unit]\ntype=Miner\nid=Bo\n[/unit]\n",
        campaign / "scenarios/01.cfg": SCENARIO,
        campaign / "scenarios/02.cfg": "[scenario]\nname=silent\n[/scenario]",
    }
    for path, content in files.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content, encoding="utf-8")
    for place in ("story/well.jpg", "portraits/ada.png", "maps/big.png"):
        path = campaign / "images" / place
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (20, 20)).save(path)
    (root / "core/images/portraits").mkdir(parents=True)
    Image.new("RGBA", (20, 20)).save(root / "core/images/portraits/miner.png")
    return root


def test_a_scenario_is_a_document(data):
    (scenario,) = read_campaigns(data)
    assert (scenario.campaign, scenario.name) == ("Wells", "The Well")
    told = [
        (page.kind, page.text, page.picture.name if page.picture else "") for page in scenario.pages
    ]
    assert told == [
        ("narration", 'Once a well stood in a "village". It was old & deep.', "well.jpg"),
        ("narration", "Nobody drank from it.", "well.jpg"),
        ("narration", "A map shows the way.", ""),
        ("dialogue", "Ada: I am thirsty.", "ada.png"),
        ("dialogue", "Bo: Let us dig .", "miner.png"),
        ("dialogue", "They dig.", ""),
        ("dialogue", "Ada: Easy.", "ada.png"),
    ]
    assert scenario.left_out == {"a variable": 1}


def test_the_script_writes_documents_that_can_be_encoded(data, tmp_path, monkeypatch, capsys):
    output = tmp_path / "wesnoth"
    script = "tokenizers/build_wesnoth.py"
    assert not run_script(
        monkeypatch, script, "--data", data, "--output", output, "--ledger", tmp_path
    )
    figures = json.loads((tmp_path / "wesnoth.json").read_text())["figures"]["campaigns"]
    assert json.loads(capsys.readouterr().out) == {"campaigns": figures}
    assert list(figures) == ["Wells", "all"]
    assert figures["all"] == {
        "documents": 1,
        "narration": 3,
        "dialogue": 4,
        "texts with a picture": 5,
        "pictures shown": 4,  # the well once
        "words": 34,
        "texts left out": 1,
        "picture files": 3,
    }
    config = JsonlFormat(files=f"{output}/documents.jsonl")
    shard = FileSource(config, rule=PictureRule(image_size=16)).read(0, 9)
    assert (shard.num_documents, shard.num_images, shard.skipped) == (1, 4, {})


def test_no_campaign(tmp_path):
    with pytest.raises(ValueError, match="no campaign in"):
        next(read_campaigns(tmp_path))


def test_arguments_of_macros():
    macros = {
        "PAIR": Macro(("A", "B"), "a={A} b={B}"),
        "WRAP": Macro(("X",), "<{PAIR {X} ({X} {X})}>"),
    }
    assert expand('{PAIR "x y" (p (q) r)}', macros) == 'a="x y" b=p (q) r'
    assert expand('{PAIR ( _ "a") 2}', macros) == 'a= _ "a" b=2'
    assert expand("{WRAP 1} {NONE {WRAP 2}}.", macros) == "<a=1 b=1 1> ."
    text, found = take_macros("x\n#define A B\n#arg C\n1\n#endarg\n{B}#enddef\ny")
    assert text.split() == ["x", "y"] and found["A"].names == ("B",)


def test_wml_that_is_torn_is_read_as_far_as_it_goes():
    root = parse('[a]\n!!\nx=1\n[b]\ny = "2"\n[/a]\n[/c]\nz=<<3>>\nw=plain # text')
    assert [tag.name for tag in root.walk()] == ["", "a", "b"]
    assert root.attributes == {"z": "3", "w": "plain"}
    assert root.children[0].attributes == {"x": "1"}
    assert root.children[0].children[0].attributes == {"y": "2"}
