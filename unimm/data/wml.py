"""Read WML, the markup of Battle for Wesnoth: macros, conditionals, and the tree of tags.

What a reader of stories needs of it: every macro that is defined in the files is expanded, of a
conditional the first branch is taken, unknown macros vanish.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

_DEFINE = re.compile(
    r"^[ \t]*#define[ \t]+(\S+)[ \t]*([^\n]*)\n(.*?)#enddef", re.DOTALL | re.MULTILINE
)
_DIRECTIVE = re.compile(r"[ \t]*#(ifdef|ifndef|ifhave|ifnhave|ifver|ifnver|else|endif)\b")
_TOKEN = re.compile(
    r"""
    (?P<space>\s+) | (?P<comment>\#[^\n]*)
    | \[ (?P<close>/)? \+? (?P<tag>[\w]+) \]
    | (?P<key>[\w\[\], ]+?) [ \t]* = [ \t]*
    """,
    re.VERBOSE,
)
_VALUE = re.compile(
    r"""
    (?: _[ \t]* )? " (?P<quoted>(?:[^"]|"")*) " | <<(?P<raw>.*?)>> | (?P<plain>[^\s"+\#<][^\n"+\#]*)
    | (?P<lone>[<"])
    """,
    re.VERBOSE | re.DOTALL,
)
_JOIN = re.compile(r"[ \t]*(?:\+\s*(?:\#[^\n]*\n\s*)*)?")


@dataclass(frozen=True)
class Macro:
    """What ``#define`` says.

    Attributes:
        names: of the arguments.
        body: text with ``{NAME}`` where arguments go.
    """

    names: tuple[str, ...]
    body: str


@dataclass
class Tag:
    """A tag with its attributes and, in order, the tags in it."""

    name: str
    attributes: dict[str, str] = field(default_factory=dict)
    children: list["Tag"] = field(default_factory=list)

    def walk(self) -> Iterator["Tag"]:
        """Give this tag and all below it, in the order of the text."""
        yield self
        for child in self.children:
            yield from child.walk()


def take_macros(text: str) -> tuple[str, dict[str, Macro]]:
    """Split a file into what it says and the macros that it defines."""
    found: dict[str, Macro] = {}

    def note(match: re.Match[str]) -> str:
        name, arguments, body = match.groups()
        names = [word for word in arguments.split("#")[0].split() if word]
        # Optional arguments have defaults of their own; without those they are empty.
        body = re.sub(r"#arg\b.*?#endarg", "", body, flags=re.DOTALL)
        found[name] = Macro(tuple(names), _first_branches(body))
        return ""

    return _first_branches(_DEFINE.sub(note, text)), found


def expand(text: str, macros: dict[str, Macro], inside: frozenset[str] = frozenset()) -> str:
    """Replace ``{NAME argument (an argument)}`` by the macro's body.

    Args:
        text: as ``take_macros`` leaves it.
        macros: by name; others vanish.
        inside: macros that are being expanded, and are not within themselves.
    """
    parts: list[str] = []
    position = 0
    while (start := text.find("{", position)) >= 0:
        end = _closing(text, start)
        parts.append(text[position:start])
        name, *values = _arguments(text[start + 1 : end])
        macro = macros.get(name)
        if macro is not None and name not in inside:
            given = dict(zip(macro.names, values, strict=False))
            # Arguments are put in before the body's own macros are expanded.
            body = re.sub(
                r"\{(\w+:?)\}", lambda match, g=given: g.get(match[1], match[0]), macro.body
            )
            parts.append(expand(body, macros, inside | {name}))
        position = end + 1
    return "".join(parts) + text[position:]


def parse(text: str) -> Tag:
    """Read expanded WML; what is no WML is passed over."""
    root = Tag("")
    open_tags = [root]
    position = 0
    while position < len(text):
        match = _TOKEN.match(text, position)
        if match is None:
            position = _after_line(text, position)
            continue
        position = match.end()
        if match["key"]:
            value, position = _value(text, position)
            open_tags[-1].attributes[match["key"].strip()] = value
        elif match["tag"] and not match["close"]:
            tag = Tag(match["tag"])
            open_tags[-1].children.append(tag)
            open_tags.append(tag)
        elif match["close"]:
            names = [tag.name for tag in open_tags]
            if match["tag"] in names[1:]:  # a macro that vanished may have held the opening
                del open_tags[len(names) - 1 - names[::-1].index(match["tag"]) :]
    return root


def _value(text: str, position: int) -> tuple[str, int]:
    """Read strings joined by ``+``, which may span lines."""
    parts: list[str] = []
    while (match := _VALUE.match(text, position)) is not None:
        if match["quoted"] is not None:
            parts.append(match["quoted"].replace('""', '"'))
        else:
            parts.append(match["raw"] or match["lone"] or match["plain"].rstrip())
        joined = _JOIN.match(text, match.end())
        assert joined is not None
        position = joined.end()
        if match["plain"] is None and "+" not in joined[0] and text[position : position + 1] != '"':
            break
    return "".join(parts), position


def _after_line(text: str, position: int) -> int:
    end = text.find("\n", position)
    return len(text) if end < 0 else end + 1


def _first_branches(text: str) -> str:
    """Keep what stands before ``#else`` of every conditional, without the directives."""
    lines: list[str] = []
    in_else: list[bool] = []
    for line in text.split("\n"):
        match = _DIRECTIVE.match(line)
        if match is None:
            if not any(in_else):
                lines.append(line)
        elif match[1] == "endif":
            if in_else:
                in_else.pop()
        elif match[1] == "else":
            if in_else:
                in_else[-1] = True
        else:
            in_else.append(False)
    return "\n".join(lines)


def _closing(text: str, start: int) -> int:
    """Where the brace that opens at ``start`` closes."""
    depth = 0
    for position in range(start, len(text)):
        depth += {"{": 1, "}": -1}.get(text[position], 0)
        if depth == 0:
            return position
    return len(text)


def _arguments(call: str) -> list[str]:
    """Split a macro call into its name and arguments; ``(...)`` and strings hold together."""
    found: list[str] = []
    word, depth, is_quoted = "", 0, False
    for letter in call:
        is_quoted ^= letter == '"'
        if not is_quoted:
            depth += {"(": 1, "{": 1, ")": -1, "}": -1}.get(letter, 0)
        if letter.isspace() and depth == 0 and not is_quoted and word != "_":
            found += [word] if word else []
            word = ""
        else:
            word += letter
    found += [word] if word else []
    return [x[1:-1] if x.startswith("(") and x.endswith(")") else x for x in found] or [""]
