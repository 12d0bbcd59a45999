"""A data centre in network namespaces, and the servers that it and the tests need."""
