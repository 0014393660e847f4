"""Throughput and memory, each figure beside the machine's own limit. See README.md."""
