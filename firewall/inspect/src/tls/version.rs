//! TLS version numbers, and the set of them a client offers.

use std::fmt;

use super::is_grease;

/// A protocol version as it stands on the wire (RFC 8446, section 4.2.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TlsVersion(pub u16);

impl TlsVersion {
    /// SSL 3.0 (RFC 6101).
    pub const SSL3: Self = Self(0x0300);
    /// TLS 1.0 (RFC 2246).
    pub const TLS1_0: Self = Self(0x0301);
    /// TLS 1.1 (RFC 4346).
    pub const TLS1_1: Self = Self(0x0302);
    /// TLS 1.2 (RFC 5246).
    pub const TLS1_2: Self = Self(0x0303);
    /// TLS 1.3 (RFC 8446).
    pub const TLS1_3: Self = Self(0x0304);

    /// The text of the log's `proto_v`; `unknown` for numbers that name no published version.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self.0 {
            0x0002 => "ssl2",
            0x0300 => "ssl3",
            0x0301 => "1.0",
            0x0302 => "1.1",
            0x0303 => "1.2",
            0x0304 => "1.3",
            _ => "unknown",
        }
    }
}

impl fmt::Display for TlsVersion {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.as_str())
    }
}

/// The published versions, SSL 3.0 to TLS 1.3, that a client is willing to speak.
///
/// GREASE, drafts and numbers nobody has assigned are left out: a server that picked one of
/// those would be refused anyway.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Versions {
    bits: u8,
}

impl Versions {
    /// What a hello without `supported_versions` offers: everything up to `legacy_version`, but
    /// never TLS 1.3 (RFC 8446, section 4.2.1).
    #[must_use]
    pub fn up_to(legacy: TlsVersion) -> Self {
        let mut versions = Self::default();
        for minor in TlsVersion::SSL3.0..=TlsVersion::TLS1_2.0.min(legacy.0) {
            versions.insert(TlsVersion(minor));
        }
        versions
    }

    /// What a `supported_versions` list offers.
    #[must_use]
    pub fn listed(list: impl IntoIterator<Item = u16>) -> Self {
        let mut versions = Self::default();
        for number in list.into_iter().filter(|&number| !is_grease(number)) {
            versions.insert(TlsVersion(number));
        }
        versions
    }

    fn insert(&mut self, version: TlsVersion) {
        self.bits |= Self::bit(version);
    }

    const fn bit(version: TlsVersion) -> u8 {
        match version {
            TlsVersion::SSL3 => 1,
            TlsVersion::TLS1_0 => 1 << 1,
            TlsVersion::TLS1_1 => 1 << 2,
            TlsVersion::TLS1_2 => 1 << 3,
            TlsVersion::TLS1_3 => 1 << 4,
            TlsVersion(_) => 0,
        }
    }

    /// Whether `version` is among them.
    #[must_use]
    pub const fn contains(self, version: TlsVersion) -> bool {
        self.bits & Self::bit(version) != 0
    }

    /// The greatest of them, if there is any.
    #[must_use]
    pub fn max(self) -> Option<TlsVersion> {
        (TlsVersion::SSL3.0..=TlsVersion::TLS1_3.0)
            .rev()
            .map(TlsVersion)
            .find(|&version| self.contains(version))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn legacy_version_alone_never_offers_tls_1_3() {
        assert_eq!(
            Versions::up_to(TlsVersion(0x0304)).max(),
            Some(TlsVersion::TLS1_2)
        );
        assert_eq!(
            Versions::up_to(TlsVersion(0x0301)).max(),
            Some(TlsVersion::TLS1_0)
        );
        assert_eq!(Versions::up_to(TlsVersion(0x0002)).max(), None);
        assert_eq!(
            Versions::up_to(TlsVersion(0xffff)).max(),
            Some(TlsVersion::TLS1_2)
        );
    }

    #[test]
    fn grease_and_drafts_are_not_versions() {
        assert_eq!(Versions::listed([0x7a7a, 0x7f1c]).max(), None);
        let offered = Versions::listed([0x3a3a, 0x0304, 0x0303]);
        assert_eq!(offered.max(), Some(TlsVersion::TLS1_3));
        assert!(offered.contains(TlsVersion::TLS1_2));
        assert!(!offered.contains(TlsVersion::TLS1_1));
    }
}
