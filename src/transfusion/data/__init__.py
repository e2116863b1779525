"""Data: readers, the built-in world, and how records become documents and batches."""
