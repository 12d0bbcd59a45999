"""ipam: networks, pools, and who holds which address."""
