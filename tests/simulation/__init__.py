"""The real services over a simulated bus, stores, clock, kernels and FRRs; see docs/simulation.md."""
