//! Whether a SYN that was let through found a source port to be translated to.
//!
//! The kernel chooses the port behind our last chain and drops the SYN where it finds none, telling nobody. It leaves two
//! traces: it has no entry of the connection, and it counts an entry that could not be inserted.

use crate::conntrack::{Conntrack, Tuple};
use crate::netlink::NetlinkError;

/// What one queue thread has made of the kernel's count.
#[derive(Debug)]
pub(super) struct Ports {
    /// The count when it was last read.
    counted: u64,
    /// Failures counted that no refused flow accounts for yet.
    unexplained: u64,
}

impl Ports {
    /// Begins to watch the count. A kernel that does not say one explains nothing.
    pub(super) fn watch(conntrack: &mut Conntrack) -> Self {
        Self::from(conntrack.insert_failures().unwrap_or(u64::MAX))
    }

    const fn from(counted: u64) -> Self {
        Self {
            counted,
            unexplained: 0,
        }
    }

    /// Whether a connection was let through and is not carried for want of a port. Whatever else may have kept it out,
    /// a rule of somebody else's say, is not counted by the kernel and is none of our reasons.
    pub(super) fn is_without(
        &mut self,
        conntrack: &mut Conntrack,
        original: &Tuple,
    ) -> Result<bool, NetlinkError> {
        if conntrack.get(original)?.is_some() {
            return Ok(false);
        }
        self.note(conntrack.insert_failures()?);
        let explained = self.unexplained > 0;
        self.unexplained = self.unexplained.saturating_sub(1);
        Ok(explained)
    }

    /// Takes in the kernel's count.
    fn note(&mut self, count: u64) {
        let fresh = count.saturating_sub(self.counted);
        self.counted = count;
        self.unexplained = self.unexplained.saturating_add(fresh);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_failure_explains_one_connection() {
        let mut ports = Ports::from(7);
        ports.note(7);
        assert_eq!(ports.unexplained, 0, "from before we were there");
        ports.note(9);
        ports.note(9);
        assert_eq!(ports.unexplained, 2);
        // A kernel that begins anew has counted nothing more.
        ports.note(0);
        assert_eq!(ports.unexplained, 2);
    }
}
