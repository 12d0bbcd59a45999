"""Small breakages of our own code, each kept as a patch, and the proof that the tests see them."""
