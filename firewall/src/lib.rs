//! The Postern daemon and command line.

pub mod conntrack;
pub mod marks;
pub mod netlink;
pub mod nfqueue;
pub mod raw;
pub mod sysctl;
