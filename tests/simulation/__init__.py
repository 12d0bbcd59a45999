"""The real handlers of all four services over a simulated bus, store, clock, kernel and FRR; see docs/simulation.md."""
