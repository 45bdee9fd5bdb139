//! The table `[certificates]`: handshakes of our own.

use std::path::PathBuf;

use serde::Deserialize;

use crate::witness::parse_anchors;

/// How servers' certificates are looked at, where preference `certificate_check` is not `off`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CertificatesConfig {
    /// Handshakes of our own a second at most, 0 to 100; 0 for none.
    pub per_second: u32,
    /// PEM file with certificate authorities to trust beside the system's.
    pub anchors: Option<PathBuf>,
    /// More such authorities, in PEM, in the file itself, at most 64 KiB; default: none.
    pub authorities: String,
    /// Whether to date certificates by a clock that the kernel calls unsynchronised, as where a hypervisor keeps it.
    pub trust_clock: bool,
}

impl Default for CertificatesConfig {
    fn default() -> Self {
        Self {
            per_second: 20,
            anchors: None,
            authorities: String::new(),
            trust_clock: false,
        }
    }
}

impl CertificatesConfig {
    /// What is wrong with the authorities written in it, if anything.
    pub(super) fn fault(&self) -> Option<String> {
        let authorities = &self.authorities;
        if authorities.is_empty() {
            return None;
        }
        if authorities.len() > AUTHORITIES_BYTES_MAX {
            return Some(format!(
                "`authorities` has more than {AUTHORITIES_BYTES_MAX} bytes"
            ));
        }
        let unusable = parse_anchors("`authorities`", authorities).err();
        unusable.map(|error| error.to_string())
    }
}

/// They go to the witness in one message, beside all else it is told.
const AUTHORITIES_BYTES_MAX: usize = 64 << 10;
