//! The Postern daemon and command line.
