//! Which addresses may be bound to a name at all.
//!
//! A name's owner decides what it resolves to. Were every answer believed, an allowed name
//! would open the metadata service, the neighbours and the appliance itself.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use ipnet::{Ipv4Net, Ipv6Net};
use policy::Snapshot;

/// What may be bound: global addresses that are nobody's here, and listed exceptions.
#[derive(Clone, Debug, Default)]
pub struct Scope {
    /// The policy in force; its clients and served networks are never global.
    pub policy: Option<Arc<Snapshot>>,
    /// This appliance's own addresses, public ones included.
    pub own: Vec<IpAddr>,
}

impl Scope {
    /// Whether `addr` may be bound to a name.
    ///
    /// `allow_private_answers` makes an exception for everything but loopback, link-local,
    /// unspecified, multicast and metadata addresses and our own.
    pub fn may_be_bound(&self, addr: IpAddr) -> bool {
        match &self.policy {
            Some(policy) => self.may_be_bound_under(policy, addr),
            None => !is_forbidden(addr) && !self.own.contains(&addr) && is_global(addr),
        }
    }

    /// The same under another policy than the scope's own.
    pub fn may_be_bound_under(&self, policy: &Snapshot, addr: IpAddr) -> bool {
        if is_forbidden(addr) || self.own.contains(&addr) {
            return false;
        }
        let listed = &policy.preferences().allow_private_answers;
        if listed.iter().any(|net| net.contains(&addr)) {
            return true;
        }
        is_global(addr) && !policy.is_served(addr) && policy.client(addr).is_none()
    }
}

/// Whether the IANA special-purpose registries call `addr` globally reachable, and no cloud
/// uses it for a service of its own.
pub fn is_global(addr: IpAddr) -> bool {
    match addr {
        IpAddr::V4(addr) => is_global_v4(addr),
        IpAddr::V6(addr) => is_global_v6(addr),
    }
}

/// Addresses that no preference may make reachable by name.
fn is_forbidden(addr: IpAddr) -> bool {
    if addr.is_loopback() || addr.is_unspecified() || addr.is_multicast() {
        return true;
    }
    match addr {
        IpAddr::V4(addr) => FORBIDDEN_V4.iter().any(|net| net.contains(&addr)),
        IpAddr::V6(addr) => {
            FORBIDDEN_V6.iter().any(|net| net.contains(&addr))
                || embedded_v4(addr).is_some_and(|inner| is_forbidden(IpAddr::V4(inner)))
        }
    }
}

fn is_global_v4(addr: Ipv4Addr) -> bool {
    !NOT_GLOBAL_V4.iter().any(|net| net.contains(&addr))
}

fn is_global_v6(addr: Ipv6Addr) -> bool {
    if NAT64.contains(&addr) {
        return embedded_v4(addr).is_some_and(is_global_v4);
    }
    let allocated = UNICAST_V6.contains(&addr);
    let special = NOT_GLOBAL_V6.iter().any(|net| net.contains(&addr));
    allocated && (!special || GLOBAL_V6.iter().any(|net| net.contains(&addr)))
}

/// The IPv4 address that a translated or mapped IPv6 address stands for.
fn embedded_v4(addr: Ipv6Addr) -> Option<Ipv4Addr> {
    let [_, a, b, _, _, _, y, z] = addr.segments();
    let of = |high: u16, low: u16| Ipv4Addr::from((u32::from(high) << 16) | u32::from(low));
    if NAT64.contains(&addr) || MAPPED.contains(&addr) || COMPATIBLE.contains(&addr) {
        Some(of(y, z))
    } else if SIX_TO_FOUR.contains(&addr) {
        Some(of(a, b))
    } else if TEREDO.contains(&addr) {
        // RFC 4380, section 4: the client's address with every bit flipped.
        Some(of(!y, !z))
    } else {
        None
    }
}

const fn v4(octets: [u8; 4], length: u8) -> Ipv4Net {
    let [a, b, c, d] = octets;
    Ipv4Net::new_assert(Ipv4Addr::new(a, b, c, d), length)
}

const fn v6(segments: [u16; 4], length: u8) -> Ipv6Net {
    let [a, b, c, d] = segments;
    Ipv6Net::new_assert(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0), length)
}

/// Link-local (the metadata services of every cloud are there), "this network", Azure's wire
/// server and Alibaba's metadata service.
const FORBIDDEN_V4: [Ipv4Net; 4] = [
    v4([0, 0, 0, 0], 8),
    v4([169, 254, 0, 0], 16),
    v4([168, 63, 129, 16], 32),
    v4([100, 100, 100, 200], 32),
];

/// Link-local, and the metadata services of AWS and GCP over IPv6.
const FORBIDDEN_V6: [Ipv6Net; 3] = [
    v6([0xfe80, 0, 0, 0], 10),
    v6([0xfd00, 0xec2, 0, 0], 32),
    v6([0xfd20, 0xce, 0, 0], 64),
];

/// IANA IPv4 special-purpose address registry, the entries that are not globally reachable;
/// multicast; and 168.63.129.16 and 199.36.153.0/24, which Azure and Google route to
/// services inside a network.
const NOT_GLOBAL_V4: [Ipv4Net; 18] = [
    v4([0, 0, 0, 0], 8),
    v4([10, 0, 0, 0], 8),
    v4([100, 64, 0, 0], 10),
    v4([127, 0, 0, 0], 8),
    v4([168, 63, 129, 16], 32),
    v4([169, 254, 0, 0], 16),
    v4([172, 16, 0, 0], 12),
    v4([192, 0, 0, 0], 24),
    v4([192, 0, 2, 0], 24),
    v4([192, 88, 99, 0], 24),
    v4([192, 168, 0, 0], 16),
    v4([198, 18, 0, 0], 15),
    v4([198, 51, 100, 0], 24),
    v4([199, 36, 153, 0], 24),
    v4([203, 0, 113, 0], 24),
    v4([224, 0, 0, 0], 4),
    v4([240, 0, 0, 0], 4),
    v4([255, 255, 255, 255], 32),
];

/// IPv6 that IANA hands out; everything else is special, reserved or multicast.
const UNICAST_V6: Ipv6Net = v6([0x2000, 0, 0, 0], 3);

/// IANA IPv6 special-purpose address registry, inside 2000::/3, not globally reachable;
/// Teredo and 6to4 whole, because nobody serves from there.
const NOT_GLOBAL_V6: [Ipv6Net; 4] = [
    v6([0x2001, 0, 0, 0], 23),
    v6([0x2001, 0xdb8, 0, 0], 32),
    v6([0x2002, 0, 0, 0], 16),
    v6([0x3fff, 0, 0, 0], 20),
];

/// The globally reachable entries inside 2001::/23: AMT and AS112 (RFC 7450, RFC 7535).
const GLOBAL_V6: [Ipv6Net; 2] = [v6([0x2001, 3, 0, 0], 32), v6([0x2001, 4, 0x112, 0], 48)];

/// The well-known translation prefix (RFC 6052, section 2.1).
const NAT64: Ipv6Net = v6([0x64, 0xff9b, 0, 0], 96);
const MAPPED: Ipv6Net = Ipv6Net::new_assert(Ipv6Addr::new(0, 0, 0, 0, 0, 0xffff, 0, 0), 96);
const COMPATIBLE: Ipv6Net = v6([0, 0, 0, 0], 96);
const SIX_TO_FOUR: Ipv6Net = v6([0x2002, 0, 0, 0], 16);
const TEREDO: Ipv6Net = v6([0x2001, 0, 0, 0], 32);

/// The addresses of this machine's interfaces.
///
/// # Errors
/// When the kernel does not list them.
pub fn own_addresses() -> nix::Result<Vec<IpAddr>> {
    let addresses = nix::ifaddrs::getifaddrs()?.filter_map(|interface| {
        let address = interface.address?;
        if let Some(v4) = address.as_sockaddr_in() {
            return Some(IpAddr::V4(v4.ip()));
        }
        address.as_sockaddr_in6().map(|v6| IpAddr::V6(v6.ip()))
    });
    Ok(addresses.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addr(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn registries_decide_what_is_global() {
        for global in [
            "8.8.8.8",
            "1.1.1.1",
            "100.128.0.1",
            "172.32.0.1",
            "192.31.196.1",
            "199.36.154.1",
            "2606:4700::1",
            "2001:4860::8888",
            "2001:3::1",
            "64:ff9b::808:808",
        ] {
            assert!(is_global(addr(global)), "{global}");
        }
        for special in [
            "0.1.2.3",
            "10.1.1.1",
            "100.64.0.1",
            "127.0.0.1",
            "169.254.169.254",
            "172.31.255.1",
            "192.0.0.8",
            "192.0.2.1",
            "192.168.1.1",
            "198.18.0.1",
            "198.19.255.1",
            "198.51.100.1",
            "203.0.113.9",
            "224.0.0.1",
            "240.0.0.1",
            "255.255.255.255",
            "168.63.129.16",
            "199.36.153.8",
            "::",
            "::1",
            "::8.8.8.8",
            "::ffff:8.8.8.8",
            "64:ff9b::169.254.169.254",
            "64:ff9b::10.0.0.1",
            "64:ff9b:1::808:808",
            "100::1",
            "2001::1",
            "2001:2::1",
            "2001:db8::1",
            "2002:808:808::1",
            "3fff::1",
            "5f00::1",
            "fc00::1",
            "fd00:ec2::254",
            "fe80::1",
            "fec0::1",
            "ff02::1",
        ] {
            assert!(!is_global(addr(special)), "{special}");
        }
    }

    #[test]
    fn own_address_is_never_bound_even_when_it_is_public() {
        let scope = Scope {
            policy: None,
            own: vec![addr("8.8.8.8")],
        };
        assert!(!scope.may_be_bound(addr("8.8.8.8")));
        assert!(scope.may_be_bound(addr("8.8.4.4")));
    }

    #[test]
    fn forbidden_addresses_are_so_in_every_disguise() {
        for hidden in [
            "169.254.169.254",
            "::ffff:169.254.169.254",
            "64:ff9b::a9fe:a9fe",
            "2002:a9fe:a9fe::1",
            "fd00:ec2::254",
            "fe80::1",
            "127.0.0.1",
            "168.63.129.16",
        ] {
            assert!(is_forbidden(addr(hidden)), "{hidden}");
        }
        assert!(!is_forbidden(addr("10.0.0.1")));
    }
}
