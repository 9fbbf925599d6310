"""Federated data sets: readers, partitions, and the value that the rest of the package trains on."""
