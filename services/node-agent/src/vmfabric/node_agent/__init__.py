"""A node's links, addresses, routes and nftables: desired state from the bus, actual state from the kernel."""
