"""Benchmarks: what the parts cost, measured beside a peer or a floor in the same run, with the answer checked."""
