//! The source gate: who may ask at all.

use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use e2e::packet::flags;
use e2e::topology::{Asker, Family, RECORDER, Topology};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrStorage, bind, connect, socket};

use crate::scene::Scene;

/// Connects from one of the client's addresses, as its kernel does.
pub(crate) fn dial(lab: &Topology, asker: Asker, to: SocketAddr) -> std::io::Result<TcpStream> {
    dial_from(lab, asker, 0, to)
}

/// The same from a port of one's own choice.
pub(crate) fn dial_from(
    lab: &Topology,
    asker: Asker,
    port: u16,
    to: SocketAddr,
) -> std::io::Result<TcpStream> {
    let family = if to.is_ipv4() { Family::V4 } else { Family::V6 };
    let from = SocketAddr::new(asker.address(family), port);
    lab.client
        .enter(|| {
            let domain = if to.is_ipv4() {
                AddressFamily::Inet
            } else {
                AddressFamily::Inet6
            };
            let socket = socket(domain, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
            let raw = std::os::fd::AsRawFd::as_raw_fd(&socket);
            bind(raw, &SockaddrStorage::from(from))?;
            connect(raw, &SockaddrStorage::from(to))?;
            Ok(TcpStream::from(socket))
        })
        .unwrap()
}

both_families! {
    fn a_client_outside_the_served_ranges_is_refused_at_once(family) {
        let lab = Topology::new().unwrap();
        let scene = Scene::new(&lab, family);
        let started = std::time::Instant::now();
        let error = dial(&lab, Asker::Foreign, RECORDER.at(family, 443)).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionRefused);
        assert!(started.elapsed() < Duration::from_secs(1));
        assert_eq!(scene.outside.matching(|seen| seen.to == scene.recorder.address), [], "a packet left");
        let src = Asker::Foreign.address(family).to_string();
        scene.daemon.logs().expect(&[("outcome", "disallowed"), ("reason", "client_unknown"), ("src", &src)]).unwrap();
    }
}

both_families! {
    /// Without a cloud to ask the inventory is all there is: an address it does not list is unknown for good.
    fn a_client_in_no_table_gets_nothing_out(family) {
        let lab = Topology::new().unwrap();
        let scene = Scene::new(&lab, family);
        assert!(dial(&lab, Asker::Unlisted, RECORDER.at(family, 443)).is_err());
        assert_eq!(scene.outside.matching(|seen| seen.to == scene.recorder.address), [], "a packet left");
        let src = Asker::Unlisted.address(family).to_string();
        scene.daemon.logs().expect(&[("outcome", "disallowed"), ("reason", "client_unknown"), ("src", &src)]).unwrap();
    }
}

both_families! {
    fn a_stranger_outside_reaches_no_client(family) {
        let lab = Topology::new().unwrap();
        let scene = Scene::new(&lab, family);
        let inside = lab.capture_inside().unwrap();
        let puppet = lab.puppet().unwrap();
        let client = SocketAddr::new(Asker::Workload.address(family), 22);
        let local = SocketAddr::new(puppet.address(family), 4_000);
        let stranger = e2e::raw::RawTcp::new(&puppet, local, client, 9_000);
        stranger.put(&stranger.syn()).unwrap();
        stranger.push(0, b"payload of a stranger").unwrap();
        scene.outside.settle(Duration::from_millis(100));
        assert_eq!(inside.matching(|seen| seen.from == local), [], "a stranger's packet arrived");
        let answers = scene.outside.matching(|seen| seen.to == local && seen.is_tcp(flags::RST));
        assert_eq!(answers, [], "a stranger was answered");
    }
}
