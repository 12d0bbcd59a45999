"""The way to FRR: vtysh and nothing else."""
