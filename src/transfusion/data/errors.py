"""What can be wrong with data: the errors that readers raise and everyone may catch."""


class DataError(ValueError):
    """The data cannot be used; the message says what was expected, where, and what to do."""


class BrokenPicture(DataError):
    """A picture cannot be read whole, today and tomorrow: it is left out and named."""


class UnreadableFile(DataError):
    """The file system fails to give a file now; nothing is said about what the file holds."""
