"""The whole interface of vmfabric: events, requests, desired state, and the subjects they travel on."""
