"""The kernel of the namespace that this process runs in."""
