"""Formats of anyone's data that hold records: one module maps each to a few kinds of record, one source tells them.

    rows of a file, members of a shard ──format──▶ Record by number ──source──▶ Document

A format knows files and nothing of tokens; ``record`` holds the kinds, ``formats`` finds which one a path has.
"""
