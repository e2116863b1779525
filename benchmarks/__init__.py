"""Comparisons with peers on equal work; each prints JSON lines."""
