//! Network namespaces, faults, probes and peers: the demo, the end-to-end tests, the benchmarks.
