"""What a port is, what the kernel says, and what to do about the difference. No I/O."""
