"""Whether an error says that memory is used up, which torch tells in several ways."""


def is_used_up(error: BaseException) -> bool:
    """Return whether there was no memory for something, on the CPU or on a device."""
    names = {kind.__name__ for kind in type(error).__mro__}
    return bool(names & {"MemoryError", "OutOfMemoryError"}) or "allocate memory" in str(error)
