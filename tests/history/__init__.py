"""What the facts on the bus say about who had what, and whether that can be."""
