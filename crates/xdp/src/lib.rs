//! The eBPF programs as an object file, and the layout of their maps.
