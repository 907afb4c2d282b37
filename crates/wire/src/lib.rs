//! Bytes to values and back: heartbeat, ARP and NDP; total parsers, no state.
