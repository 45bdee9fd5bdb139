//! Every byte between the daemon, its witness and the sidecar.
