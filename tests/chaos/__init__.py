"""Real faults on real processes in the lab, under load, and what must be true in spite of them."""
