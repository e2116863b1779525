"""Text that comes from outside: arguments, and what stands in standard input."""

import sys
from unicodedata import category

from transfusion.config import ConfigError

STDIN = "-"
HIDDEN = ("Cc", "Cf", "Cs", "Zl", "Zp")  # controls, formats, surrogates, ends of lines and paragraphs
JOINERS = "\u200c\u200d"


def plain(text: str, what: str) -> str:
    """Return an argument or a line as Unicode: the bytes that came from outside are read as UTF-8.

    Args:
        text: With a surrogate for every byte that Python could not read.
        what: How an error names it.

    Raises:
        ConfigError: It is not UTF-8.
    """
    try:
        return text.encode("utf-8", "surrogateescape").decode()
    except UnicodeError as error:
        raise ConfigError(f"{what} is not UTF-8: {text!r:.80}; write it in UTF-8") from error


def prompt_text(prompt: str) -> str:
    """Return a prompt as it was given, or all of standard input where it is ``-``.

    Raises:
        ConfigError: It is empty, or not UTF-8.
    """
    text = plain(sys.stdin.read() if prompt == STDIN else prompt, "the prompt")
    if not text:
        raise ConfigError("the prompt is empty; give a text to go on from, or - for standard input")
    return text


def visible(text: str) -> str:
    """Return a text in which what a terminal would obey, or could not show, is written as an escape."""
    return "".join(
        character.encode("unicode_escape").decode() if is_hidden(character) else character for character in text
    )


def is_hidden(character: str) -> bool:
    """Return whether a character is a control, one that turns or hides what stands around it, or half a surrogate
    pair; what joins letters or parts them, as in Persian and in some emoji, is none.
    """
    return category(character) in HIDDEN and character not in JOINERS
