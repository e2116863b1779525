"""Evaluators: exact scores in the built-in world, losses everywhere. One file each."""
