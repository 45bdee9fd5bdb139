//! Judges forwarded packets. Performs no I/O and reads no clock.
