"""Documents that cannot be told while a run trains: each is named in the run's quarantine, too many end the run."""

import logging
from collections.abc import Mapping
from pathlib import Path

from transfusion.data.errors import DataError
from transfusion.data.readers import QUARANTINE_FILE
from transfusion.files import append_row, read_rows

NUM_TOLD = 3  # that are named on the terminal
LEAST_SEEN = 64  # documents before a share says anything
_log = logging.getLogger(__name__)


class Broken:
    """Counts them since a run was opened."""

    def __init__(self, run: Path, max_share: float) -> None:
        """Begin to count.

        Args:
            run: Folder of the run.
            max_share: Largest share of the documents that may be broken.
        """
        self._file, self._max_share = run / QUARANTINE_FILE, max_share
        self._known = {str(row.get("file")) for row in read_rows(self._file)}
        self._num_seen = self._num_broken = self._num_told = 0
        self._last = ""

    def add(self, broken: Mapping[str, str], num_documents: int) -> None:
        """Note those of a step.

        Args:
            broken: Why they are, by name.
            num_documents: Documents of the step, broken ones included.

        Raises:
            DataError: They are more than the share that may be.
        """
        self._num_seen += num_documents
        self._num_broken += len(broken)
        for name, reason in broken.items():
            self._last = reason
            if name not in self._known:
                self._known.add(name)
                append_row(self._file, {"file": name, "reason": reason})
                self._num_told += 1
                if self._num_told <= NUM_TOLD:
                    _log.warning("%s is left out: %s", name, reason)
        if self._num_seen >= LEAST_SEEN and self._num_broken > self._max_share * self._num_seen:
            raise DataError(
                f"{self._num_broken} of {self._num_seen} documents are broken, more than the share that may be dropped "
                f"(train.max_dropped {self._max_share}, which may be raised); {self._file} names them, the last: "
                f"{self._last}"
            )
