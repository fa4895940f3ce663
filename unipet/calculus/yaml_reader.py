"""The one reader and the one writer of YAML: YAML 1.2's core schema, no tags, no key twice.

An unquoted `no` is a text, `1e-3` a number, `010` ten; what a text field gets is the text as written (`Plain` keeps it).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from unipet.errors import UnipetError

#: The core schema (https://yaml.org/spec/1.2.2/#103-core-schema): everything else that is not quoted is a text, too.
_WORDS: dict[str, bool | float | None] = {
    **dict.fromkeys(("null", "Null", "NULL", "~", "")),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
    **dict.fromkeys((".nan", ".NaN", ".NAN"), float("nan")),
    **{f"{sign}.{inf}": float(f"{sign}inf") for sign in ("", "+", "-") for inf in ("inf", "Inf", "INF")},
}
_DECIMAL, _OCTAL, _HEXADECIMAL = re.compile(r"[-+]?[0-9]+"), re.compile(r"0o[0-7]+"), re.compile(r"0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")

DIGITS = 400  # a longer number is beyond every float
BYTES = 8 * 2**20  # of one file
DEPTH = 60  # mappings and lists inside each other
NODES = 200_000  # values of one file, each alias counted with all that it stands for


class Plain(str):
    """An unquoted scalar that is no text by itself: the text as written, and in `value` what YAML reads in it."""

    __slots__ = ()

    @property
    def value(self) -> bool | int | float | str | None:
        """None, a truth value or a number; a text where the core schema knows none of these."""
        text = str(self)
        if text in _WORDS:
            return _WORDS[text]
        if len(text) > DIGITS:
            return text
        if _DECIMAL.fullmatch(text):
            return int(text)
        if _OCTAL.fullmatch(text):
            return int(text[2:], 8)
        if _HEXADECIMAL.fullmatch(text):
            return int(text, 16)
        return float(text) if _FLOAT.fullmatch(text) else text


def value_of(node: Any) -> Any:
    """The value of an unquoted scalar; anything else as it is."""
    return node.value if isinstance(node, Plain) else node


def text_of(node: Any) -> Any:
    """An unquoted scalar as the text that was written; anything else as it is."""
    return str(node) if isinstance(node, Plain) else node


def values(tree: Any) -> Any:
    """A tree of what `parse_yaml` returns with every unquoted scalar as its value."""
    if isinstance(tree, Mapping):
        return {key: values(inner) for key, inner in tree.items()}
    return [values(inner) for inner in tree] if isinstance(tree, list) else value_of(tree)


def texts(tree: Any) -> Any:
    """The same with every unquoted scalar as the text that was written."""
    if isinstance(tree, Mapping):
        return {key: texts(inner) for key, inner in tree.items()}
    return [texts(inner) for inner in tree] if isinstance(tree, list) else text_of(tree)


def read_yaml(path: Path) -> Any:
    """A file's values. Raises `UnipetError`, naming file and line, for what cannot be read."""
    return values(read_written(path))


def read_written(path: Path) -> Any:
    """A file as `parse_yaml` reads it. Raises `UnipetError`, naming file and line, for what cannot be read."""
    try:
        if (size := path.stat().st_size) > BYTES:
            raise UnipetError(f"{path}: {size:,} bytes; at most {BYTES:,} of YAML are read.")
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise UnipetError(f"{path}: not a readable YAML file: byte {error.start} is no UTF-8.") from None
    except OSError as error:
        raise UnipetError(f"{path}: not a readable YAML file: {error.strerror or error}.") from None
    return parse_yaml(text, str(path))


def parse_yaml(text: str, source: str) -> Any:
    """Mappings, lists and texts, with `Plain` for unquoted nulls, truth values and numbers; keys are texts as written.

    `source` is what errors name. Raises `UnipetError` for broken YAML, a key that stands twice, a tag, a second
    document, an alias inside itself, and for more than `DEPTH` levels or `NODES` values.
    """
    import yaml

    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        return _Builder(source, yaml.parse(text, Loader=loader)).document()
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or getattr(error, "reason", None) or str(error)
        raise UnipetError(f"{source}{line}: not a readable YAML file: {problem}.") from None


def write_yaml(value: Any) -> str:
    """`value` as a YAML document in the order given. Texts that a reader of YAML 1.1 or 1.2 would take for something else
    are quoted, so that `read_yaml` gives back what was written. An unquoted scalar is written as it was."""
    import yaml

    class Dumper(yaml.SafeDumper):
        """PyYAML quotes what 1.1 would misread; these are what 1.2 reads besides."""

    for pattern in (_FLOAT, _DECIMAL, _OCTAL, _HEXADECIMAL):
        Dumper.add_implicit_resolver("tag:yaml.org,2002:float", re.compile(f"^(?:{pattern.pattern})$"), None)
    Dumper.add_representer(Plain, represent_plain)
    return str(yaml.dump(value, Dumper=Dumper, sort_keys=False))


def represent_plain(dumper: Any, plain: Plain) -> Any:
    """A node of PyYAML that is written without quotes."""
    node = dumper.represent_scalar("tag:yaml.org,2002:str", str(plain))
    node.tag = dumper.resolve(type(node), str(plain), (True, False))
    return node


class _Builder:
    """One document out of the parser's events."""

    def __init__(self, source: str, events: Iterator[Any]) -> None:
        self.source, self.events = source, events
        self.anchors: dict[str, tuple[Any, int]] = {}  # name -> what it stands for, and of how many values that is
        self.count = 0

    def document(self) -> Any:
        """The content of the only document; None for an empty file."""
        import yaml

        next(self.events)  # the stream's start
        if isinstance(next(self.events), yaml.StreamEndEvent):
            return None
        tree = self.node(next(self.events), 0)
        next(self.events)  # the document's end
        if not isinstance(last := next(self.events), yaml.StreamEndEvent):
            raise self.mistake(last, "a second document begins; a file holds one")
        return tree

    def node(self, event: Any, depth: int) -> Any:
        """What begins with `event`."""
        import yaml

        if isinstance(event, yaml.AliasEvent):
            if event.anchor not in self.anchors:
                raise self.mistake(event, f"alias *{event.anchor} has no anchor before it, or stands inside its own")
            tree, size = self.anchors[event.anchor]
            self.counted(event, size)
            return tree
        if event.tag not in (None, "!"):
            raise self.mistake(event, f"the tag {event.tag} is not read. Take it out")
        if depth > DEPTH:
            raise self.mistake(event, f"more than {DEPTH} levels deep")
        before = self.count
        self.counted(event, 1)
        if isinstance(event, yaml.ScalarEvent):
            tree = self.scalar(event)
        elif isinstance(event, yaml.SequenceStartEvent):
            tree = [self.node(inner, depth + 1) for inner in self.until(yaml.SequenceEndEvent)]
        else:
            tree = self.mapping(depth)
        if event.anchor is not None:
            self.anchors[event.anchor] = tree, self.count - before
        return tree

    def scalar(self, event: Any) -> str:
        text = str(event.value)
        if not event.implicit[0]:  # quoted, or a block of text
            return text
        if len(text) > DIGITS and _FLOAT.fullmatch(text):
            raise self.mistake(event, f"a number of {len(text)} digits; at most {DIGITS} are read")
        plain = Plain(text)
        return text if isinstance(plain.value, str) else plain

    def mapping(self, depth: int) -> dict[str, Any]:
        """Own keys come before those of `<<`."""
        import yaml

        own: dict[str, Any] = {}
        merged: dict[str, Any] = {}
        for event in self.until(yaml.MappingEndEvent):
            if not isinstance(event, yaml.ScalarEvent) or event.tag not in (None, "!"):
                raise self.mistake(event, "a key is a text, and this is none")
            key = str(event.value)
            value = self.node(next(self.events), depth + 1)
            if key == "<<" and event.implicit[0]:
                for other in reversed(value if isinstance(value, list) else [value]):
                    if not isinstance(other, Mapping):
                        raise self.mistake(event, "<< takes a mapping or a list of mappings")
                    merged.update(other)
            elif key in own:
                raise self.mistake(event, f"the key {key!r} stands twice")
            else:
                own[key] = value
        return {**merged, **own}

    def until(self, end: type) -> Iterator[Any]:
        while not isinstance(event := next(self.events), end):
            yield event

    def counted(self, event: Any, size: int) -> None:
        self.count += size
        if self.count > NODES:
            raise self.mistake(event, f"more than {NODES:,} values")

    def mistake(self, event: Any, problem: str) -> UnipetError:
        return UnipetError(f"{self.source}, line {event.start_mark.line + 1}: {problem}.")
