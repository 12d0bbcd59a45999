"""The local FRR's configuration, and the proof of what it advertises."""
