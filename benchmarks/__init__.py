"""Side-by-side measurements of zmreg and its peers; `python -m benchmarks --help` lists the workloads."""
