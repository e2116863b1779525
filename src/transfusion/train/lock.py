"""Locks that one process holds and that its end releases, however it ends. It must not know what they guard.

A lock is the system's lock on a file, not the file: one that a kill left behind holds nobody up.
"""

import contextlib
import errno
import fcntl
import logging
import os
import re
import socket
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

LOCK_FILE = ".training.lock"
LOCK_UNKNOWN = frozenset({errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP})
_HOLDER = re.compile(rb"(\d+( .*)?)?")
_held: set[int] = set()
_log = logging.getLogger(__name__)


class BusyError(OSError):
    """Another process, or another part of this one, is at work there; the message says where and what to do."""


@dataclass(frozen=True)
class RunLock:
    """Says that its bearer holds the lock of a run's folder."""

    run: Path


@contextmanager
def hold_run(run: Path) -> Generator[RunLock]:
    """Hold a run's folder for a training; made where it is missing, and taken back if nothing was written into it.

    Raises:
        BusyError: Another training holds it.
    """
    made = [folder for folder in (run, *run.parents) if not folder.exists()]
    run.mkdir(parents=True, exist_ok=True)
    try:
        with hold(run / LOCK_FILE, f"{run} is being trained in", "wait for its end, or name another folder (--run)"):
            yield RunLock(run)
    finally:
        with contextlib.suppress(OSError):
            for folder in made:
                folder.rmdir()


@contextmanager
def hold(file: Path, what: str, remedy: str, *, is_ours: bool = False) -> Generator[None]:
    """Hold a lock on a file, which is made for it and deleted after it.

    Args:
        file: The file; its folder must be there.
        what: What is going on where another holds it, for the message.
        remedy: What to do then.
        is_ours: Whether a file of this name can only be a lock, whatever is in it.

    Raises:
        BusyError: Another holds it, or the file is none of ours: a link, or with another content.
    """
    descriptor = _locked(file, what, remedy, is_ours=is_ours)
    _held.add(descriptor)
    try:
        with contextlib.suppress(OSError):  # who holds it is told as a help; a full disk is no reason not to train
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, f"{os.getpid()} on {socket.gethostname()}".encode(), 0)
        yield
    finally:
        with contextlib.suppress(OSError):
            file.unlink()
        _held.discard(descriptor)
        os.close(descriptor)


def _locked(file: Path, what: str, remedy: str, *, is_ours: bool) -> int:
    while True:
        try:
            descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)
        except OSError as error:
            if error.errno != errno.ELOOP:
                raise
            raise BusyError(f"{file} is a link, and no lock that was left behind; move it away") from None
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(descriptor, 200, 0).decode(errors="replace").strip()
            os.close(descriptor)
            raise BusyError(f"{what} by another process ({holder or 'unknown'}); {remedy}") from None
        except OSError as error:
            if error.errno not in LOCK_UNKNOWN:
                os.close(descriptor)
                raise
            _log.warning("the file system of %s has no locks: see to it that no other process writes there", file)
        if _is_at(descriptor, file):
            if is_ours or _HOLDER.fullmatch(os.pread(descriptor, 1000, 0)):
                return descriptor
            os.close(descriptor)
            raise BusyError(f"{file} holds something else than a lock that was left behind; move it away")
        os.close(descriptor)  # its holder deleted it between the two calls: take the next


def _is_at(descriptor: int, file: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), file.stat())
    except FileNotFoundError:
        return False


def _leave_to_parent() -> None:
    """Let go, in a forked process, of what its parent holds: a data worker may outlive a parent that is killed."""
    for descriptor in _held:
        os.close(descriptor)
    _held.clear()


os.register_at_fork(after_in_child=_leave_to_parent)
