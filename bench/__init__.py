"""Benchmarks of the worker beside a plain Faust agent, on a real Kafka and a real Redis."""
