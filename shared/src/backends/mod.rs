//! Adapters of the ports, and the one place that chooses between them.
