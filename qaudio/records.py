"""Typed records of JSON objects: parsed once, with limits, and written back as they were read."""

import re
from typing import Annotated, Any, TypeVar

import msgspec
from msgspec import Meta

from qaudio.errors import InputError
from qaudio.text import UNSHOWN, one_line

T = TypeVar("T")

MAX_TEXT = 20_000  # characters
_SHOWN = UNSHOWN.pattern[1:-1]
_PART = rf"(?!\.{{1,2}}(?:/|\Z))[^/\\{_SHOWN}]+"  # of a path, or a name
ONE_LINE = rf"\A[^{_SHOWN}]*\Z"
NAME = rf"\A{_PART}\Z"
ENTRY = rf"\A(?:{_PART}|hf-hub:[\w.-]+/[\w.-]+(?:@[^\s/]+)?)\Z"
INSIDE = r"\A(?!.*:)" + rf"{_PART}(?:/{_PART})*\Z"
SHA256 = r"\A[0-9a-f]{64}\Z"
WORDS = {
    repr(ONE_LINE): "text of one line", repr(NAME): "a name without slashes",
    repr(ENTRY): "an entry's name, or its address on the Hub",
    repr(INSIDE): "a path inside the entry", repr(SHA256): "a sha256 in hexadecimal",
    "str": "text", "int": "a whole number", "float": "a finite number", "bool": "true or false",
    "array": "a list", "object": "an object",
}  # fmt: skip

Text = Annotated[str, Meta(pattern=ONE_LINE, max_length=MAX_TEXT)]
Name = Annotated[str, Meta(pattern=NAME, max_length=MAX_TEXT)]
EntryName = Annotated[str, Meta(pattern=ENTRY, max_length=MAX_TEXT)]
InnerPath = Annotated[str, Meta(pattern=INSIDE, max_length=MAX_TEXT)]
Sha256 = Annotated[str, Meta(pattern=SHA256)]
Integer = Annotated[int, Meta(ge=-(2**63) + 1, le=2**63 - 1)]
Count = Annotated[int, Meta(ge=0, le=2**63 - 1)]
Number = Annotated[float, Meta(ge=-1e30, le=1e30)]
Positive = Annotated[float, Meta(gt=0, le=1e30)]
Share = Annotated[float, Meta(ge=-1e-9, le=1)]
Change = Annotated[float, Meta(ge=-1, le=1)]


class Record(msgspec.Struct, dict=True):
    """A JSON object whose keys are fields; keys of no field are kept for `to_dict`."""

    def to_dict(self) -> dict[str, Any]:
        """For JSON: keys in the order that they were read in; options that are empty left out."""
        read = self.__dict__.get("_read", {})
        found = dict(read)
        for field in msgspec.structs.fields(self):
            value = getattr(self, field.name)
            if field.required or field.name in read or value not in (None, []):
                found[field.name] = _plain(value)
        return found


def parse(document: Any, kind: type[T]) -> T:
    """A record, or list or dict of records, of what a JSON file holds.

    Raises:
        InputError: names the first place that is not as the type says, what was expected and what
            was found.
    """
    try:
        record = msgspec.convert(document, kind)
    except msgspec.ValidationError as error:
        raise InputError(_explained(str(error), document)) from None
    _remember(record, document)
    return record


def check_fields(kind: type[Record], values: dict[str, Any]) -> None:
    """Raise InputError for values, by field, that a record could not be read with."""
    types = {field.name: field.type for field in msgspec.structs.fields(kind)}
    parse(values, msgspec.defstruct(kind.__name__, [(name, types[name]) for name in values]))


def fits(value: Any, kind: Any) -> bool:
    """Whether a value is of a type, such as `InnerPath`."""
    try:
        msgspec.convert(value, kind)
    except msgspec.ValidationError:
        return False
    return True


def _plain(value: Any) -> Any:
    if isinstance(value, Record):
        return value.to_dict()
    if isinstance(value, dict):
        return {key: _plain(one) for key, one in value.items()}
    return [_plain(one) for one in value] if isinstance(value, list | tuple) else value


def _remember(value: Any, document: Any) -> None:
    """Give every record the object that it was read from."""
    if isinstance(value, Record):
        value.__dict__["_read"] = document
        value = {name: getattr(value, name) for name in value.__struct_fields__}
    if isinstance(value, dict):
        for key in value.keys() & document.keys():
            _remember(value[key], document[key])
    elif isinstance(value, list):
        for one, plain in zip(value, document, strict=True):
            _remember(one, plain)


def _explained(message: str, document: Any) -> str:
    """msgspec's message with the words and the value of the other errors."""
    what, _, where = message.partition(" - at ")
    path = re.sub(r"^.*`\$\.?|`$", "", where)
    if missing := re.fullmatch("Object missing required field `(.*)`", what):
        return f"{path}{'.' if path else ''}{missing[1]} is missing"
    what, _, got = what.partition(", got ")
    expected, _, pattern = what.partition(" matching regex ")
    for word in re.findall(r"\w+", "".join(re.findall("`[^`]*`", expected))):
        expected = expected.replace(word, WORDS.get(word, word))
    expected = expected[:1].lower() + expected[1:].replace("`", "").replace(" | ", " or ")
    if pattern:
        expected = f"expected {WORDS[pattern]}"
    if where.startswith("`key`"):
        return f"{path}: of its keys: {expected}"
    return f"{path}{': ' if path else ''}{expected}, found {_found(document, path) or got}"


def _found(document: Any, path: str) -> str:
    """The value at a path, such as "result.interval95[0]"; "" where the path does not say."""
    for key in re.findall(r"[^.\[\]]+|\.\.\.", path):
        if key == "..." or (isinstance(document, dict) and key not in document):
            return ""
        document = document[int(key) if isinstance(document, list) else key]
    kind = "" if document is None else f"{type(document).__name__} "
    return f"{kind}{one_line(repr(document), 60)}"
