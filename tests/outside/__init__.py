"""vmfabric in a lab, seen from outside: what tests, benchmarks and chaos have in common."""
