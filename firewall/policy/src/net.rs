//! Addresses and prefixes as people write them.

use std::net::IpAddr;

use ipnet::IpNet;

/// Text that is no address and no prefix.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidPrefix {
    /// Neither an address nor a prefix.
    #[error("{0:?} is not an address or CIDR prefix")]
    Form(String),
    /// Bits behind the prefix length: cutting them off in silence would widen the rule.
    #[error("{text:?} has bits behind its prefix length: write {meant:?}")]
    HostBits {
        /// What was written.
        text: String,
        /// The prefix those bits lie in.
        meant: String,
    },
}

/// Reads an address, or a prefix without bits behind its length.
///
/// # Errors
///
/// When the text is neither.
pub fn parse_prefix(text: &str) -> Result<IpNet, InvalidPrefix> {
    if let Ok(address) = text.parse::<IpAddr>() {
        return Ok(IpNet::from(address));
    }
    let net: IpNet = text
        .parse()
        .map_err(|_| InvalidPrefix::Form(text.to_owned()))?;
    if net == net.trunc() {
        Ok(net)
    } else {
        Err(InvalidPrefix::HostBits {
            text: text.to_owned(),
            meant: net.trunc().to_string(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_its_own_prefix() {
        assert_eq!(parse_prefix("10.0.1.5").unwrap().to_string(), "10.0.1.5/32");
        assert_eq!(parse_prefix("fd00::1").unwrap().to_string(), "fd00::1/128");
        assert_eq!(
            parse_prefix("10.0.0.0/8").unwrap().to_string(),
            "10.0.0.0/8"
        );
    }

    #[test]
    fn bits_behind_the_length_are_refused_and_not_cut_off() {
        let fault = parse_prefix("10.0.1.5/8").unwrap_err();
        assert_eq!(
            fault.to_string(),
            "\"10.0.1.5/8\" has bits behind its prefix length: write \"10.0.0.0/8\""
        );
        assert!(parse_prefix("10.0.0.0/33").is_err());
        assert!(parse_prefix("example.com").is_err());
    }
}
