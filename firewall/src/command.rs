//! The commands beside the daemon itself, one module each.

pub(crate) mod explain;
pub(crate) mod run;
pub(crate) mod status;
