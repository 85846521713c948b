from collections import Counter

import pytest

from unimm.data.world.atoms import Atom
from unimm.data.world.parse import parse_caption
from unimm.evaluation.boxes import Found
from unimm.evaluation.picture_config import PictureRunConfig
from unimm.evaluation.picture_requests import dump_requests, hash_text, read_requests
from unimm.evaluation.question_graph import (
    answer,
    apply_dependencies,
    graph_score,
    questions_of,
)
from unimm.evaluation.worldeval import ALL_TASKS, SPLITS, TASKS, is_heldout, sample_requests


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("tag", ALL_TASKS)
def test_a_hundred_different_prompts_of_the_split(tag: str, split: str):
    requests = sample_requests(tag, split, num=100, seed=3)
    assert len({request.prompt for request in requests}) == 100
    for request in requests:
        assert is_heldout(request.metadata) == (split == "heldout"), request.prompt
        assert request.scene is not None and request.tag == tag
    assert [x.id for x in sample_requests(tag, split, num=3, seed=3)] == [
        x.id for x in requests[:3]
    ]


def test_prompts_follow_from_the_seed():
    first, again = (sample_requests("colors", "seen", num=5, seed=3) for _ in range(2))
    assert first == again
    assert first != sample_requests("colors", "seen", num=5, seed=4)


def test_the_prompts_are_those_that_published_scores_were_measured_on():
    """A change of the world's wording makes other prompts: say so, and measure all again."""
    prompts = [
        request.prompt
        for tag in ALL_TASKS
        for split in SPLITS
        for request in sample_requests(tag, split, num=5, seed=PictureRunConfig().seed)
    ]
    assert hash_text("\n".join(prompts)) == "a0d177e58884d16c"


@pytest.mark.parametrize("tag", ALL_TASKS)
def test_all_that_a_prompt_says_is_demanded_and_nothing_else(tag: str):
    for request in sample_requests(tag, "heldout", num=20, seed=0):
        demanded: set[Atom] = set()
        include = request.metadata.include
        for clause in include:
            demanded.add(Atom("exists", clause.kind))
            names = {"color": "colour", "headwear": "headwear", "style": "style"}
            demanded |= {Atom(names[x], clause.kind, word) for x, word in clause.looks.items()}
            if clause.count > 1:
                demanded.add(Atom("count", clause.kind, str(clause.count)))
            if clause.position:
                relation, target = clause.position
                demanded.add(Atom("relation", clause.kind, relation, include[target].kind))
        said = parse_caption(request.prompt)
        assert demanded == {atom for atom in said if atom.kind != "background"}
        assert {question.atom for question in request.questions} == said


def test_tasks_ask_what_their_names_say():
    def demands(tag: str, split: str = "seen") -> list:
        return [x.metadata for x in sample_requests(tag, split, num=30, seed=1)]

    assert len(TASKS) == 8
    assert all(len(x.include) == 1 for x in demands("single_object"))
    assert all(len(x.include) == 2 for x in demands("two_object"))
    assert all("color" in x.include[0].looks for x in demands("colors"))
    assert all(
        len({clause.looks["color"] for clause in x.include}) == 2 for x in demands("color_attr")
    )
    counts = Counter(x.include[0].count for x in demands("counting"))
    assert set(counts) <= {2, 3, 4, 5} and len(counts) > 2
    assert {6, 7} & {x.include[0].count for x in demands("counting", "heldout")}
    assert all(x.exclude[0].count == x.include[0].count + 1 for x in demands("counting"))
    for tag, words in (("position", "left right"), ("depth_order", "front behind")):
        relations = {x.include[1].position[0] for x in demands(tag)}
        assert len(relations) == 2 and all(any(w in r for w in words.split()) for r in relations)
    styles = [
        x.metadata.include[0].looks["style"]
        for x in sample_requests("style", "seen", num=30, seed=1, styles=("3d", "flat", "noto"))
    ]
    assert set(styles) == {"3d", "flat", "noto"}


def test_requests_are_read_back(tmp_path):
    requests = [
        request for tag in ALL_TASKS for request in sample_requests(tag, "heldout", num=2, seed=0)
    ]
    path = tmp_path / "requests.jsonl"
    path.write_text(dump_requests(requests))
    assert read_requests(path) == requests


def test_a_metadata_file_of_geneval_is_read(tmp_path):
    path = tmp_path / "metadata.jsonl"
    path.write_text(
        '{"tag": "colors", "include": [{"class": "cup", "count": 1, "color": "red"}], '
        '"prompt": "a photo of a red cup"}\n'
    )
    (request,) = read_requests(path)
    assert (request.id, request.split, request.scene) == ("00000", "given", None)


def test_bad_requests_are_refused(tmp_path):
    (request,) = sample_requests("colors", "seen", num=1, seed=0)
    with pytest.raises(ValueError, match="two requests are called 'colors-seen-000'"):
        dump_requests([request, request])
    with pytest.raises(ValueError, match="no requests"):
        dump_requests([])
    with pytest.raises(ValueError, match="unknown task 'colour'"):
        sample_requests("colour", "seen", num=1, seed=0)
    with pytest.raises(ValueError, match="unknown split 'test'"):
        sample_requests("colors", "test", num=1, seed=0)
    path = tmp_path / "requests.jsonl"
    path.write_text(dump_requests([request]) + '{"tag": "colors"')
    with pytest.raises(ValueError, match="line 2"):
        read_requests(path)


FOX = (
    Atom("exists", "fox"),
    Atom("colour", "fox", "blue"),
    Atom("exists", "ball"),
    Atom("count", "ball", "2"),
    Atom("colour", "ball", "red"),
    Atom("relation", "fox", "left of", "ball"),
    Atom("background", value="snow"),
)


def things(*, fox: str = "blue", balls: tuple[str, ...] = ("red", "red")) -> dict:
    seen = {"ball": [Found(kind="ball", box=(80, 50, 100, 70), score=1, looks={"color": c})
                     for c in balls]}  # fmt: skip
    if fox:
        seen["fox"] = [Found(kind="fox", box=(0, 40, 30, 70), score=1, looks={"color": fox})]
    return {kind: found for kind, found in seen.items() if found}


def answers(objects: dict, background: str = "snow") -> dict[str, bool]:
    questions = questions_of(FOX)
    said = {x.number: answer(x, objects, background) for x in questions}
    passed = apply_dependencies(questions, said)
    return {question.text: passed[question.number] for question in questions}


def test_a_right_picture_passes_all_questions():
    said = answers(things())
    assert len(said) == 7 and all(said.values())
    assert list(said) == [
        "Is there a ball?",
        "Is there a fox?",
        "Are there exactly two balls?",
        "Are the two balls red?",
        "Is the fox blue?",
        "Is the fox on the left of the ball?",
        "Is this in the snow?",
    ]


def test_each_mistake_fails_its_question():
    assert not answers(things(fox="pink"))["Is the fox blue?"]
    assert not answers(things(balls=("red", "blue")))["Are the two balls red?"]
    assert not answers(things(balls=("red",)))["Are there exactly two balls?"]
    assert not answers(things(), "desert")["Is this in the snow?"]


def test_children_of_a_failed_parent_fail_whatever_was_answered():
    questions = questions_of(FOX)
    yes = {question.number: True for question in questions}
    no_fox = next(x.number for x in questions if x.atom == Atom("exists", "fox"))
    passed = apply_dependencies(questions, yes | {no_fox: False})
    failed = {x.text for x in questions if not passed[x.number]}
    assert failed == {
        "Is there a fox?",
        "Is the fox blue?",
        "Is the fox on the left of the ball?",
    }
    assert graph_score(questions, yes | {no_fox: False}) == pytest.approx(4 / 7)
    assert graph_score(questions, yes) == 1


def test_graphs_that_cannot_be_scored_are_refused():
    questions = questions_of(FOX)
    with pytest.raises(ValueError, match="has no answer"):
        graph_score(questions, {})
    with pytest.raises(ValueError, match="before its parent"):
        graph_score(questions[::-1], {x.number: True for x in questions})
    with pytest.raises(ValueError, match="without questions"):
        graph_score((), {})
