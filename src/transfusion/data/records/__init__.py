"""Formats of anyone's data that hold records: one module maps each to a few kinds of record, one source tells them.

    rows of a file, members of a shard ──format──▶ Record by number ──source──▶ Document

A format knows files and nothing of tokens; ``record`` holds the kinds, ``detect`` finds which one a path has. The kinds
stand here for a format of one's own: see ``own``.
"""

from transfusion.data.decode import Held, Slice
from transfusion.data.records.record import Captioned, Conversation, Edit, Interleaved, Turn

__all__ = ["Captioned", "Conversation", "Edit", "Held", "Interleaved", "Slice", "Turn"]
