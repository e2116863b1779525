"""Evaluators: exact scores in the built-in world, held-out losses everywhere. One file each."""
