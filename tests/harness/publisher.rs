//! Publishes policies to a running Postern as the sidecar does, over its control socket.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use ipc::control::{Document, Event, Hello, Reply, Request, SourceState};
use ipc::snapshot::SnapshotV1;
use ipc::socket::Client;
use policy::Draft;
use policy::inventory::{Scope, read};

/// A connection to the control socket.
pub struct Publisher {
    client: Client,
}

impl std::fmt::Debug for Publisher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Publisher").finish_non_exhaustive()
    }
}

impl Publisher {
    /// Connects.
    pub fn connect(socket: &Path) -> Result<Self> {
        let hello = Hello::new("test", false);
        let client = Client::connect(socket, hello, Duration::from_secs(20))?;
        Ok(Self { client })
    }

    /// Publishes what an inventory says; the generation it is in force as.
    pub fn publish(&mut self, inventory: &str) -> Result<u64> {
        self.publish_document(document(&draft(inventory)?)?)
    }

    /// Publishes a document made before.
    pub fn publish_document(&mut self, document: Document) -> Result<u64> {
        let reply = self.client.call(&Request::Publish(document))?;
        if let Reply::Adopted(adopted) = &reply {
            return Ok(adopted.generation);
        }
        bail!("not adopted: {reply:?}")
    }

    /// Says whether its source can be read.
    pub fn source(&mut self, state: SourceState) -> Result<()> {
        let reply = self.client.call(&Request::Source(state))?;
        if matches!(reply, Reply::Noted) {
            return Ok(());
        }
        bail!("not noted: {reply:?}")
    }
}

/// A connection to the control socket that is told what happens.
pub struct Listener {
    client: Client,
}

impl std::fmt::Debug for Listener {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Listener").finish_non_exhaustive()
    }
}

impl Listener {
    /// Connects; what happened before is not told.
    pub fn connect(socket: &Path) -> Result<Self> {
        let hello = Hello::new("test", true);
        let client = Client::connect(socket, hello, Duration::from_secs(20))?;
        Ok(Self { client })
    }

    /// Waits until a generation, or a later one, is primed.
    pub fn primed(&mut self, wanted: u64) -> Result<()> {
        loop {
            if let Event::Primed { generation } = self.client.event()?
                && generation >= wanted
            {
                return Ok(());
            }
        }
    }
}

/// An inventory as a draft.
pub fn draft(inventory: &str) -> Result<Draft> {
    let mut no_lists = |_: &policy::annotation::ListReference| Err("no lists here".to_owned());
    read(inventory, Scope::Whole, &mut no_lists).context("reading an inventory")
}

/// The document that says so.
pub fn document(draft: &Draft) -> Result<Document> {
    let json = SnapshotV1::from(draft).to_json()?;
    Document::from_json(json).context("a document")
}
