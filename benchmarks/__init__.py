"""The library beside its peers on one task: `python -m benchmarks`, results in RESULTS.md."""
