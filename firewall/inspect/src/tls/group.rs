//! Key-exchange groups that resist a quantum computer.

/// Whether a named group is post-quantum, alone or in a hybrid.
///
/// IANA's "TLS Supported Groups" registry, and the numbers early browsers used on their own.
#[must_use]
pub const fn is_post_quantum(group: u16) -> bool {
    matches!(
        group,
        // MLKEM512, MLKEM768, MLKEM1024
        512..=514
        // SecP256r1MLKEM768, X25519MLKEM768, SecP384r1MLKEM1024, curveSM2MLKEM768
        | 4587..=4590
        // X25519Kyber768Draft00, SecP256r1Kyber768Draft00
        | 25497 | 25498
        // CECPQ2 and CECPQ2b, Chromium's experiments of 2019
        | 0x4138 | 0xfe31
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hybrids_are_post_quantum_and_curves_are_not() {
        assert!(is_post_quantum(0x11ec));
        assert!(is_post_quantum(0x0201));
        assert!(!is_post_quantum(29));
        assert!(!is_post_quantum(0x0100));
    }
}
