"""What others wrote (names of files, labels, messages), fit to be shown on one line."""

import difflib
import re
from collections.abc import Iterable

# Controls, line breaks of every kind, what turns the direction of writing, what has no form (byte
# order marks, tags; not the joiners that scripts and emoji need), and halves of characters, which
# no encoding can write.
UNSHOWN = re.compile(
    "[\x00-\x1f\x7f-\x9f\xad\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ud800-\udfff"
    "\ufeff\ufff9-\ufffb\U000e0000-\U000e007f]"
)


def shown(text: str) -> str:
    r"""The text with what cannot be shown as escapes, such as \n."""
    return UNSHOWN.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def is_text(text: str) -> bool:
    """Whether UTF-8 can hold the text and a path may: names of files can be any bytes but NUL."""
    return re.search("[\0\ud800-\udfff]", text) is None


def cut(line: str, most: int = 1000) -> str:
    """The line, without its middle where it is longer than so many characters."""
    return line if len(line) <= most else f"{line[: most // 2]} … {line[3 - most // 2 :]}"


def markdown(text: str) -> str:
    """The text as Markdown that shows it: neither markup nor a table's border."""
    return re.sub(r"([\\|<>`*\[\]])", r"\\\1", text)


def one_line(text: object, most: int = 1000) -> str:
    """The text on one line of at most so many characters."""
    line = shown(" ".join(str(text).split()))
    return line if len(line) <= most else line[: most - 1] + "…"


def similar(name: str, known: Iterable[str], form: str = "{}") -> str:
    """Names that may have been meant, as the end of a message ("; similar: …"); "" without any."""
    close = difflib.get_close_matches(name, list(known), n=3)
    return f"; similar: {', '.join(map(form.format, close))}" if close else ""


def spreadsheet_safe(text: str) -> str:
    """The text with an apostrophe before it where a spreadsheet would take it for a formula."""
    return f"'{text}" if text[:1] in "=+-@" and text else text
