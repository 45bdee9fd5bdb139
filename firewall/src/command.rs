//! The commands beside the daemon itself, one module each.

pub(crate) mod documentation;
pub(crate) mod explain;
pub(crate) mod flows;
pub(crate) mod learn;
pub(crate) mod lint;
pub(crate) mod replay;
pub(crate) mod review;
pub(crate) mod run;
pub(crate) mod status;
pub(crate) mod trial;
