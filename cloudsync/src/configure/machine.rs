//! Which cloud this machine is in, by what its firmware says.

use std::fmt;
use std::path::Path;

use super::metadata::Service;
use crate::config::ProviderKind;

/// Where Linux shows it.
pub(super) const DMI: &str = "/sys/class/dmi/id";

/// Where this machine runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Machine {
    /// `sys_vendor` is "Amazon EC2" (EC2 user guide, "Identify EC2 instances", Nitro instances).
    Aws,
    /// `product_name` is "Google Compute Engine" (Compute Engine, "Detect if a VM is running in Compute Engine").
    Gcp,
    /// Anything else.
    Elsewhere,
}

impl Machine {
    /// Reads the firmware's description below `dmi`; one that cannot be read is no cloud's.
    pub(super) fn read(dmi: &Path) -> Self {
        let field = |name: &str| std::fs::read_to_string(dmi.join(name)).unwrap_or_default();
        if field("sys_vendor").trim() == "Amazon EC2" {
            Self::Aws
        } else if field("product_name").trim() == "Google Compute Engine" {
            Self::Gcp
        } else {
            Self::Elsewhere
        }
    }

    /// Where policy comes from unless user data says otherwise.
    pub(super) const fn provider(self) -> ProviderKind {
        match self {
            Self::Aws => ProviderKind::Aws,
            Self::Gcp => ProviderKind::Gcp,
            Self::Elsewhere => ProviderKind::File,
        }
    }

    /// Whether policy may come from there: a cloud's policy only in that cloud, a file anywhere.
    pub(super) fn allows(self, provider: ProviderKind) -> bool {
        provider == ProviderKind::File || self == Self::Elsewhere || provider == self.provider()
    }

    /// Whose metadata service holds the user data.
    pub(super) const fn metadata(self) -> Option<Service> {
        match self {
            Self::Aws => Some(Service::Aws),
            Self::Gcp => Some(Service::Gcp),
            Self::Elsewhere => None,
        }
    }
}

impl fmt::Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Aws => "an Amazon EC2 instance",
            Self::Gcp => "a Google Compute Engine instance",
            Self::Elsewhere => "in neither cloud",
        })
    }
}

/// The word for a provider in `cloudsync.toml`.
pub(super) const fn name(provider: ProviderKind) -> &'static str {
    match provider {
        ProviderKind::Aws => "aws",
        ProviderKind::Gcp => "gcp",
        ProviderKind::File => "file",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn described(field: &str, text: &str) -> Machine {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join(field), text).unwrap();
        Machine::read(folder.path())
    }

    #[test]
    fn firmware_tells_the_cloud() {
        assert_eq!(described("sys_vendor", "Amazon EC2\n"), Machine::Aws);
        assert_eq!(
            described("product_name", "Google Compute Engine\n"),
            Machine::Gcp
        );
        assert_eq!(described("sys_vendor", "QEMU\n"), Machine::Elsewhere);
        assert_eq!(
            described("product_name", "not Amazon EC2"),
            Machine::Elsewhere
        );
    }

    #[test]
    fn a_clouds_policy_is_read_in_that_cloud_only() {
        assert!(Machine::Aws.allows(ProviderKind::Aws));
        assert!(Machine::Aws.allows(ProviderKind::File));
        assert!(!Machine::Aws.allows(ProviderKind::Gcp));
        assert!(!Machine::Gcp.allows(ProviderKind::Aws));
        assert!(Machine::Elsewhere.allows(ProviderKind::Aws));
    }
}
