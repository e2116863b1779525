"""What can be wrong with data: the errors that readers raise and everyone may catch."""


class DataError(ValueError):
    """The data cannot be used; the message says what was expected, where, and what to do."""


class BrokenPicture(DataError):
    """A picture cannot be read whole."""
