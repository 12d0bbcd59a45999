"""Desired against actual: the loop that every node service runs."""
