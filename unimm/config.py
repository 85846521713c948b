"""One way to configure a run: defaults < one YAML file < ``--section.field value``.

Configs are frozen keyword-only dataclasses that live beside the class they configure. Where one of
several dataclasses may stand (an objective, a data source), the YAML section names it with a tag,
``{name: next_scale, ...}``, and the caller hands over the registry that resolves the tag:

    config = load_config(TrainConfig, sys.argv[1:], choices={ObjectiveConfig: OBJECTIVES})
    save_config(config, run_dir / "config.yaml", choices={ObjectiveConfig: OBJECTIVES})

YAML gives values to dacite, which checks their types; tyro reads the flags and writes ``--help``.
"""

import dataclasses
import re
import types
import typing
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any, TypeGuard, TypeVar, Union, cast, get_args, get_origin

import dacite
import yaml

Config = TypeVar("Config")
Choices = Mapping[type, Mapping[str, type]]
"""Base dataclass of a field -> tag in YAML -> dataclass that the tag stands for."""

TAG = "name"


def load_config(
    cls: type[Config], argv: Sequence[str], *, choices: Choices | None = None
) -> Config:
    """Build the config of a run from its command line.

    Args:
        cls: frozen dataclass to build. Its attribute docstrings become the text of ``--help``.
        argv: the command line without the program's name: at most one YAML file, which comes
            first, then overrides such as ``--optimizer.lr 1e-4`` or ``--scales 1 2 4``. The YAML
            must be a whole config by itself, fields without a default included.
        choices: registries for fields whose type is a base dataclass.

    Returns:
        The merged config.

    Raises:
        ValueError: the YAML holds an unknown key, an unknown tag or a value of a wrong type. The
            message names the key's path and the nearest known name.
        SystemExit: a flag is wrong (tyro prints why), or ``--help`` was asked for.
    """
    import tyro

    flags = list(argv)
    default: Any = None
    if flags and not flags[0].startswith("-"):
        path = Path(flags.pop(0))
        default = config_from_dict(cls, read_yaml(path), choices=choices, source=str(path))
    return tyro.cli(
        cls,
        args=flags,
        default=default,
        # The YAML chooses which dataclass fills a section; flags change its fields.
        config=(tyro.conf.AvoidSubcommands, tyro.conf.FlagConversionOff),
        use_underscores=True,
    )


def save_config(config: object, path: str | Path, *, choices: Choices | None = None) -> None:
    """Write a config as the YAML that reruns the run.

    Args:
        config: dataclass instance, as ``load_config`` returned it.
        path: file to write.
        choices: the registries that ``load_config`` was given.

    Raises:
        ValueError: reading the file again would not give an equal config.
    """
    values = config_to_dict(config, choices=choices)
    again = config_from_dict(type(config), values, choices=choices, source=f"to be saved in {path}")
    if again != config:
        raise ValueError(
            f"{type(config).__name__} does not survive YAML: {values}; use fields of plain types "
            "(bool, int, float, str, tuple, list, dict, dataclass), and hand over the choices"
        )
    text = yaml.safe_dump(values, sort_keys=False, allow_unicode=True)
    Path(path).write_text(text, encoding="utf-8")


def config_to_dict(config: object, *, choices: Choices | None = None) -> dict[str, Any]:
    """Turn a config into plain dicts, lists and scalars, tags included.

    Args:
        config: dataclass instance.
        choices: the registries that ``load_config`` was given.
    """
    tags = {cls: tag for registry in (choices or {}).values() for tag, cls in registry.items()}
    return cast(dict[str, Any], _plain(config, tags))


def config_from_dict(
    cls: type[Config],
    values: Mapping[str, Any],
    *,
    choices: Choices | None = None,
    source: str = "config",
) -> Config:
    """Build a config from plain values, strictly: the inverse of ``config_to_dict``.

    Args:
        cls: dataclass to build.
        values: field name -> value; missing fields keep their defaults.
        choices: registries for fields whose type is a base dataclass.
        source: what to call the values in error messages, such as the file's path.

    Raises:
        ValueError: unknown key, unknown tag, missing key or wrong type.
    """
    return _Builder(choices or {}, source).build(cls, values, "")


def read_yaml(path: str | Path) -> dict[str, Any]:
    """Read a YAML file of sections and fields.

    Differs from plain YAML 1.1 in two ways that bite people: ``1e-3`` is a number, and a key given
    twice is an error.

    Raises:
        ValueError: the file is missing, is not YAML, or is not a mapping.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"no config file at {path}; give the path of a YAML file first")
    try:
        values: Any = yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader)
    except yaml.YAMLError as error:
        raise ValueError(f"{path} is not valid YAML: {error}") from error
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise ValueError(f"{path} must hold 'key: value' lines, found {type(values).__name__}")
    return cast(dict[str, Any], values)


class _Loader(yaml.SafeLoader):
    """YAML in which 1e-3 is a number and a repeated key an error."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key_node, _ in node.value:
            if key_node.value in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"key {key_node.value!r} is given twice", key_node.start_mark
                )
            seen.add(key_node.value)
        return super().construct_mapping(node, deep)


# YAML 1.1 wants a dot in the mantissa and a sign in the exponent, so it reads 1e-3 as text.
_Loader.add_implicit_resolver(  # pyright: ignore[reportUnknownMemberType]
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?[0-9][0-9_]*[eE][-+]?[0-9]+$"),
    list("-+0123456789"),
)


@dataclasses.dataclass(frozen=True)
class _Builder:
    """Walks plain values and the types of a dataclass side by side."""

    choices: Choices
    source: str

    def build(self, cls: type[Config], values: Mapping[str, Any], path: str) -> Config:
        """Check the keys, resolve what lies below them, and let dacite check the types."""
        hints = typing.get_type_hints(cls)
        known = [field.name for field in dataclasses.fields(cast(Any, cls)) if field.init]
        for key in values:
            if key not in known:
                raise self._unknown("key", str(key), known, path)
        fields = {
            key: self._value(hints[key], item, _join(path, key)) for key, item in values.items()
        }
        try:
            return dacite.from_dict(cls, fields, dacite.Config(strict=True))
        except dacite.MissingValueError as error:
            key = _join(path, error.field_path or "")
            raise ValueError(
                f"{self.source}: '{key}' is missing and has no default; add it"
            ) from None
        except dacite.WrongTypeError as error:
            key = _join(path, error.field_path or "")
            raise self._wrong(cast(Any, error).field_type, error.value, key) from None
        except ValueError as error:  # a check of the dataclass itself
            raise ValueError(f"{self.source}: {path + ': ' if path else ''}{error}") from error

    def _value(self, hint: Any, value: Any, path: str) -> Any:
        if isinstance(value, bool) and hint in (int, float):  # a bool is an int to Python
            raise self._wrong(hint, value, path)
        if hint is float and isinstance(value, int):
            return float(value)
        if isinstance(hint, type) and dataclasses.is_dataclass(hint) and _is_mapping(value):
            concrete, fields = self._tagged(hint, value, path)
            return self.build(cast(type[Any], concrete), fields, path)
        origin: Any = get_origin(hint)
        args: tuple[Any, ...] = get_args(hint)
        if origin in (Union, types.UnionType):
            return self._alternative(args, value, path)
        if origin in (dict, Mapping) and _is_mapping(value):
            return {key: self._value(args[1], x, _join(path, key)) for key, x in value.items()}
        if origin in (list, tuple) and isinstance(value, (list, tuple)):
            items = cast(Sequence[Any], value)
            hints = args if origin is tuple and args[-1] is not ... else [args[0]] * len(items)
            if len(hints) != len(items):
                raise self._wrong(hint, value, path)
            pairs = enumerate(zip(hints, items, strict=True))
            built = [self._value(item_hint, x, f"{path}[{i}]") for i, (item_hint, x) in pairs]
            return tuple(built) if origin is tuple else built
        return cast(Any, value)

    def _alternative(self, hints: Sequence[Any], value: Any, path: str) -> Any:
        """Follow the alternative of a union that has the value's form; dacite checks the rest."""
        hints = [hint for hint in hints if hint is not types.NoneType]
        if len(hints) == 1 and value is not None:
            return self._value(hints[0], value, path)
        for hint in hints:
            form = get_origin(hint) or hint
            is_section = _is_mapping(value) and (form is dict or dataclasses.is_dataclass(form))
            if is_section or (isinstance(value, (list, tuple)) and form in (list, tuple)):
                return self._value(hint, value, path)
        return cast(Any, value)

    def _tagged(
        self, base: type, values: Mapping[str, Any], path: str
    ) -> tuple[type, Mapping[str, Any]]:
        """Replace a base dataclass by the one that the section's tag names."""
        registry = self.choices.get(base)
        if registry is None:
            return base, values
        if TAG not in values:
            raise ValueError(
                f"{self.source}: '{path}' needs '{TAG}: ...', one of {', '.join(registry)}"
            )
        tag = values[TAG]
        if tag not in registry:
            raise self._unknown(TAG, str(tag), list(registry), path)
        return registry[tag], {key: item for key, item in values.items() if key != TAG}

    def _unknown(self, what: str, name: str, known: Sequence[str], path: str) -> ValueError:
        near = get_close_matches(name, known, n=1)
        hint = f"did you mean '{near[0]}'? " if near else ""
        place = f" in '{path}'" if path else ""
        return ValueError(
            f"{self.source}: unknown {what} '{name}'{place}; {hint}known: {', '.join(known)}"
        )

    def _wrong(self, hint: Any, value: Any, path: str) -> ValueError:
        wanted = hint.__name__ if isinstance(hint, type) and not get_args(hint) else str(hint)
        return ValueError(
            f"{self.source}: '{path}' must be {wanted}, got {value!r} ({type(value).__name__})"
        )


def _plain(value: Any, tags: Mapping[type, str]) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        cls = type(value)
        head: dict[str, Any] = {TAG: tags[cls]} if cls in tags else {}
        fields = [field.name for field in dataclasses.fields(value) if field.init]
        return head | {name: _plain(getattr(value, name), tags) for name in fields}
    if _is_mapping(value):
        return {key: _plain(item, tags) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item, tags) for item in cast(Sequence[Any], value)]
    return value


def _is_mapping(value: Any) -> TypeGuard[Mapping[str, Any]]:
    return isinstance(value, Mapping)


def _join(path: str, key: str) -> str:
    return f"{path}.{key}" if path else key
