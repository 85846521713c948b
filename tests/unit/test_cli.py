"""The console command, as a person starts it."""

import json
import subprocess
import sys

import pytest
from PIL import Image
from pipelines import tiny_pipeline

import unimm
from unimm.cli import main


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> str:
    folder = tmp_path_factory.mktemp("model")
    tiny_pipeline().save_pretrained(folder, precision="int8")
    return str(folder)


@pytest.fixture
def run(model, capsys):
    def start(command: str, *arguments: object) -> tuple[int, str, str]:
        words = [command, *map(str, arguments), "--model", model, "--device", "cpu"]
        code = main(words)
        told = capsys.readouterr()
        return code, told.out, told.err

    return start


def test_story_is_a_page(run, tmp_path):
    output = tmp_path / "out" / "story.html"
    code, told, error = run("story", "mia", "--num-images", 2, "--seed", 3, "--output", output)
    assert code == 0 and told == f"{output}: 2 pictures, seed 3\n" and error.endswith(" s\n")
    page = output.read_text()
    # A picture of four rows is looked at after three of them.
    assert page.count('class="moment"') == 2 * 3 and "seed 3" in page


def test_many_stories_and_json(run, tmp_path):
    options = ("--num-images", 1, "--seed", 3, "--output", tmp_path / "s.json", "--json")
    code, told, _ = run("story", "mia", "she", *options)
    told = json.loads(told)
    assert code == 0 and told["seconds"] > 0
    assert [story["settings"]["seed"] for story in told["stories"]] == [3, 4]
    for story in told["stories"]:
        with open(story["file"]) as file:
            assert json.load(file)["settings"]["seed"] == story["settings"]["seed"]


def test_pages_of_ones_own_and_windows(run, tmp_path):
    pages = ("--page", "mia", "--page", "she", "--window-pages", 1)
    code, told, _ = run("story", *pages, "--output", tmp_path / "s.json", "--json")
    assert code == 0 and json.loads(told)["stories"][0]["texts"] == ["mia", "she"]
    code, told, _ = run("story", *pages, "--write-on", "--output", tmp_path / "s.json", "--json")
    (story,) = json.loads(told)["stories"]
    assert code == 0 and story["settings"]["write_on"]
    assert all(x.startswith(y) for x, y in zip(story["texts"], ["mia", "she"], strict=True))
    code, _, error = run("story", "a", "b", *pages)
    assert code == 1 and "--page tells one story" in error


def test_image_draws_and_changes(run, model, tmp_path):
    first, second = tmp_path / "a.png", tmp_path / "b.png"
    assert run("image", "mia", "--seed", 1, "--output", first)[0] == 0
    same = unimm.generate_image(unimm.load_pipeline(model, device="cpu"), "mia", seed=1)
    with Image.open(first) as drawn:
        assert drawn.tobytes() == same.tobytes()
    assert run("image", "she", "--picture", first, "--seed", 1, "--output", second)[0] == 0
    with Image.open(first) as a, Image.open(second) as b:
        assert a.size == b.size == (16, 16) and a.tobytes() != b.tobytes()


def test_the_objective_is_the_user_s_choice(run, tmp_path):
    tiny_pipeline("next_token", "masked").save_pretrained(tmp_path / "two", precision="int8")
    drawn = []
    for options in ((), ("--objective", "masked", "--num-steps", 3)):
        output = tmp_path / f"{len(options)}.png"
        words = ["image", "mia", "--seed", 4, "--output", output, *options]
        words += ["--model", tmp_path / "two", "--device", "cpu", "--json"]
        assert main([*map(str, words)]) == 0
        drawn.append(output.read_bytes())
    assert drawn[0] != drawn[1]
    code, _, error = run("image", "mia", "--objective", "masked", "--output", tmp_path / "x.png")
    assert code == 1 and "draws by next_token, not by 'masked'" in error


def test_caption_and_question(run, tmp_path):
    Image.new("RGB", (40, 30), "red").save(tmp_path / "a.png")
    code, told, _ = run("caption", tmp_path / "a.png", tmp_path / "a.png")
    assert code == 0 and told.startswith("The picture shows") and told.count("The picture") >= 2
    code, told, _ = run("caption", tmp_path / "a.png", "--question", "is she?", "--json")
    assert code == 0 and not json.loads(told)["captions"][0]["text"].startswith("is she?")


def test_continue_takes_texts_and_pictures_in_any_order(run, tmp_path):
    Image.new("RGB", (40, 30), "red").save(tmp_path / "a.PNG")
    options = ("--num-images", 1, "--json", "--output", tmp_path / "s.html")
    code, told, _ = run("continue", "mia", tmp_path / "a.PNG", "she", *options)
    story = json.loads(told)["stories"][0]
    assert code == 0 and story["num_images"] == 2
    assert story["settings"]["prompt"] == ["mia", {"picture": 0}, "she"]
    code, _, error = run("continue", "mia", "gone.jpg", *options)
    assert code == 1 and "no picture at gone.jpg" in error


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("story", "mia", "--output", "s.pdf"), "must end in .html, .json, got 's.pdf'"),
        (("image", "mia", "--output", "s.html"), "must end in .png"),
        (("story", "mia", "--num-images", -1), "num_images must be 0 or larger"),
        (("caption", "missing.png"), "no picture at missing.png"),
        (("image",), "say what to draw"),
        (("caption",), "name the file of a picture"),
        (("continue",), "give texts or files of pictures"),
    ],
)
def test_what_cannot_be_used_is_said_on_stderr(run, words, message):
    code, told, error = run(*words)
    assert code == 1 and told == "" and message in error and error.startswith("unimm: ")


def test_unknown_models_and_options_have_their_exit_codes(capsys):
    assert main(["story", "mia", "--model", "storywrld"]) == 1
    assert "did you mean 'storyworld'?" in capsys.readouterr().err
    with pytest.raises(SystemExit) as stop:
        main(["story", "mia", "--num-imagess", "2"])
    assert stop.value.code == 2


def test_control_c_is_clean(run, monkeypatch, tmp_path):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(unimm, "generate", interrupt)
    code, told, error = run("story", "mia", "--output", tmp_path / "s.html")
    assert (code, told) == (130, "") and "stopped" in error and not list(tmp_path.iterdir())


def test_help_teaches_and_does_not_load_torch():
    code = (
        "import sys\nfrom unimm.cli import main\n"
        "try: main(['continue', '--help'])\nfinally: assert 'torch' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert 'unimm continue "This is Mia." mia.jpg' in done.stdout
