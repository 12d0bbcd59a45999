"""Clusters, nodes, VM records and their life cycle, placement."""
