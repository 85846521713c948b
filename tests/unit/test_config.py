from dataclasses import dataclass, field
from typing import Literal

import pytest

from unimm.config import config_to_dict, load_config, save_config


@dataclass(frozen=True, kw_only=True)
class Part:
    weight: float = 1.0
    """How much this part counts."""


@dataclass(frozen=True, kw_only=True)
class Scales(Part):
    scales: tuple[int, ...] = (1, 2)


@dataclass(frozen=True, kw_only=True)
class Masked(Part):
    num_steps: int = 8


PARTS = {"next_scale": Scales, "masked": Masked}
CHOICES = {Part: PARTS}


@dataclass(frozen=True, kw_only=True)
class Optimizer:
    lr: float = 3e-4
    betas: tuple[float, float] = (0.9, 0.95)
    warmup: int | None = None

    def __post_init__(self):
        if self.lr <= 0:
            raise ValueError(f"lr must be positive, got {self.lr}")


@dataclass(frozen=True, kw_only=True)
class Run:
    run_dir: str = "runs/demo"
    schedule: Literal["cosine", "wsd"] = "cosine"
    use_ema: bool = False
    optimizer: Optimizer = field(default_factory=Optimizer)
    objectives: dict[str, Part] = field(default_factory=lambda: {"image": Scales()})
    extra: tuple[Part, ...] = ()
    tokenizer: Part | None = None


def load(tmp_path, text, *flags):
    path = tmp_path / "run.yaml"
    path.write_text(text)
    return load_config(Run, [str(path), *flags], choices=CHOICES)


def test_order_is_defaults_then_yaml_then_flags(tmp_path):
    text = "optimizer: {lr: 1e-3, warmup: 5}\nobjectives: {image: {name: masked}}"
    config = load(tmp_path, text, "--optimizer.lr", "2e-3", "--objectives.image.weight", "0.5")
    assert config.optimizer == Optimizer(lr=2e-3, warmup=5)
    assert config.objectives == {"image": Masked(weight=0.5, num_steps=8)}
    assert config.schedule == "cosine"


def test_no_yaml_gives_defaults_and_flags():
    config = load_config(Run, ["--use_ema", "True", "--objectives.image.scales", "1", "3", "5"])
    assert config == Run(use_ema=True, objectives={"image": Scales(scales=(1, 3, 5))})


@pytest.mark.parametrize("text", ["1e-3", "1E-3", "+1e-3", "0.001", "1.0e-3"])
def test_every_way_to_write_a_number(tmp_path, text):
    assert load(tmp_path, f"optimizer: {{lr: {text}}}").optimizer.lr == 0.001


def test_whole_number_where_a_float_is_due(tmp_path):
    config = load(tmp_path, "optimizer: {lr: 1, betas: [0, 1]}")
    assert [type(x) for x in (config.optimizer.lr, *config.optimizer.betas)] == [float] * 3


def test_tags_in_tuples_and_optional_fields(tmp_path):
    config = load(tmp_path, "extra: [{name: masked}]\ntokenizer: {name: next_scale, scales: [4]}")
    assert config.extra == (Masked(),)
    assert config.tokenizer == Scales(scales=(4,))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("optimiser: {}", "unknown key 'optimiser'; did you mean 'optimizer'"),
        ("optimizer: {lrr: 1}", "unknown key 'lrr' in 'optimizer'; did you mean 'lr'"),
        (
            "objectives: {image: {name: next_scal}}",
            "unknown name 'next_scal' in 'objectives.image'; did you mean 'next_scale'",
        ),
        ("objectives: {image: {weight: 1}}", "'objectives.image' needs 'name: ...'"),
        ("extra: [{name: masked, scales: [1]}]", r"unknown key 'scales' in 'extra\[0\]'"),
        ("optimizer: {lr: fast}", "'optimizer.lr' must be float, got 'fast'"),
        ("optimizer: {warmup: true}", "'optimizer.warmup' must be int, got True"),
        ("optimizer: {betas: [0.9]}", "'optimizer.betas' must be tuple"),
        ("optimizer: 3", "'optimizer' must be Optimizer, got 3"),
        ("objectives: {image: {name: next_scale, scales: '12'}}", "'objectives.image.scales' must"),
        ("schedule: linear", "'schedule' must be .*cosine.*wsd"),
        ("optimizer: {lr: -1}", "optimizer: lr must be positive, got -1"),
        ("use_ema: true\nuse_ema: false", "'use_ema' is given twice"),
        ("- 1", "must hold 'key: value' lines"),
        ("a: [", "not valid YAML"),
    ],
)
def test_bad_yaml_is_a_clear_error(tmp_path, text, message):
    with pytest.raises(ValueError, match=message) as error:
        load(tmp_path, text)
    assert "run.yaml" in str(error.value)


def test_missing_file_is_named():
    with pytest.raises(ValueError, match=r"no config file at nowhere\.yaml"):
        load_config(Run, ["nowhere.yaml"])


def test_required_field_must_be_given(tmp_path):
    @dataclass(frozen=True, kw_only=True)
    class Needs:
        output: str
        seed: int = 0

    (tmp_path / "a.yaml").write_text("seed: 1")
    with pytest.raises(ValueError, match="'output' is missing"):
        load_config(Needs, [str(tmp_path / "a.yaml")])
    assert load_config(Needs, ["--output", "x"]) == Needs(output="x")


def test_wrong_flag_stops_with_the_near_match(tmp_path, capsys):
    with pytest.raises(SystemExit):
        load(tmp_path, "", "--optimizer.lrr", "1")
    assert "optimizer.lr" in capsys.readouterr().err


def test_help_shows_attribute_docstrings(capsys):
    with pytest.raises(SystemExit) as stop:
        load_config(Run, ["--help"])
    assert stop.value.code == 0
    assert "How much this part counts." in capsys.readouterr().out


def test_saved_config_reruns_the_run(tmp_path):
    config = load(
        tmp_path,
        "extra: [{name: masked, num_steps: 3}]\nobjectives: {a: {name: next_scale}}",
        *("--optimizer.lr", "1e-5", "--run_dir", "runs/\N{WHITE SMILING FACE}"),
    )
    save_config(config, tmp_path / "saved.yaml", choices=CHOICES)
    assert load_config(Run, [str(tmp_path / "saved.yaml")], choices=CHOICES) == config
    assert config_to_dict(config, choices=CHOICES)["extra"][0]["name"] == "masked"


def test_config_that_would_not_come_back_is_refused(tmp_path):
    with pytest.raises(ValueError, match="unknown key 'scales' in 'objectives.image'"):
        save_config(Run(tokenizer=Masked()), tmp_path / "x.yaml")  # no choices, so no tag
    with pytest.raises(ValueError, match="does not survive YAML"):
        run = Run(extra=[Masked()])  # pyright: ignore[reportArgumentType]  (comes back a tuple)
        save_config(run, tmp_path / "x.yaml", choices=CHOICES)
    assert not (tmp_path / "x.yaml").exists()
