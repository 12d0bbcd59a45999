"""What every service runs on: the bus, consumers, desired state, request and reply, logs, metrics."""
