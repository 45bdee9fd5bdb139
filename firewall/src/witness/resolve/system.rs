//! The system's resolvers, read again whenever their file changes.

use std::fs::Metadata;
use std::net::SocketAddr;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use hickory_resolver::system_conf::parse_resolv_conf;

/// The resolvers of `resolv.conf`.
#[derive(Debug)]
pub(in crate::witness) struct SystemResolvers {
    path: PathBuf,
    seen: Option<Stamp>,
}

/// What tells one version of a file from the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    changed: (i64, i64),
}

impl SystemResolvers {
    /// Those of `/etc/resolv.conf`.
    pub(in crate::witness) fn new() -> Self {
        Self::at("/etc/resolv.conf".into())
    }

    fn at(path: PathBuf) -> Self {
        Self { path, seen: None }
    }

    /// The resolvers, when the file has changed since the last call that returned any; `None` also
    /// while it is not there or names none, so that a file caught half-written costs nothing.
    pub(in crate::witness) fn changed(&mut self) -> Option<Vec<SocketAddr>> {
        let stamp = Stamp::of(&std::fs::metadata(&self.path).ok()?);
        if self.seen == Some(stamp) || stamp.size > FILE_MAX {
            return None;
        }
        let text = std::fs::read(&self.path).ok()?;
        let servers = servers(&text);
        if servers.is_empty() {
            return None;
        }
        self.seen = Some(stamp);
        Some(servers)
    }
}

impl Stamp {
    fn of(metadata: &Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.size(),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }
}

fn servers(text: &[u8]) -> Vec<SocketAddr> {
    let Ok((config, _)) = parse_resolv_conf(text) else {
        return Vec::new();
    };
    let port = |server: &hickory_resolver::config::NameServerConfig| {
        server.connections.first().map_or(53, |first| first.port)
    };
    let servers = config.name_servers().iter();
    servers
        .map(|server| SocketAddr::new(server.ip, port(server)))
        .collect()
}

/// A longer file is none.
const FILE_MAX: u64 = 64 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_is_read_again_when_it_changes_and_only_then() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("resolv.conf");
        let mut system = SystemResolvers::at(path.clone());
        assert_eq!(system.changed(), None, "not there");
        std::fs::write(&path, "search example\nnameserver 192.0.2.1\n").unwrap();
        let first: SocketAddr = "192.0.2.1:53".parse().unwrap();
        assert_eq!(system.changed(), Some(vec![first]));
        assert_eq!(system.changed(), None, "unchanged");
        std::fs::write(&path, "").unwrap();
        assert_eq!(system.changed(), None, "caught half-written");
        let fresh = folder.path().join("fresh");
        std::fs::write(&fresh, "nameserver 2001:db8::1\nnameserver 192.0.2.1\n").unwrap();
        std::fs::rename(&fresh, &path).unwrap();
        let second: SocketAddr = "[2001:db8::1]:53".parse().unwrap();
        assert_eq!(system.changed(), Some(vec![second, first]));
    }

    #[test]
    fn nonsense_names_no_resolver() {
        for text in ["\0\u{ff}", "nameserver\n", "nameserver example.org\n"] {
            assert_eq!(servers(text.as_bytes()), [], "{text:?}");
        }
    }
}
