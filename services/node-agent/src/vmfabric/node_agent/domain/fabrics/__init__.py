"""What a node wants besides its VMs' ports, a file for each network type."""
