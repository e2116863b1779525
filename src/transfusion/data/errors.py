"""What can be wrong with data: the errors that readers raise and everyone may catch."""


def plain(name: str) -> str:
    r"""Return the name of a file as it can be written everywhere: bytes that are not UTF-8 become escapes.

    >>> len("caf\udce9"), len(plain("caf\udce9"))
    (4, 9)
    """
    return name.encode("utf-8", "backslashreplace").decode()


def has_lone_surrogates(text: str) -> bool:
    """Return whether a text holds half a surrogate pair, which no file of UTF-8 can."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return True
    return False


class DataError(ValueError):
    """The data cannot be used; the message says what was expected, where, and what to do."""

    def __init__(self, message: str) -> None:
        """Keep a message that can be written everywhere, whatever files are called."""
        super().__init__(plain(message))


class BrokenPicture(DataError):
    """A picture cannot be read whole, today and tomorrow: it is left out and named."""


class UnreadableFile(DataError):
    """The file system fails to give a file now; nothing is said about what the file holds."""
