//! Connections that are judged and then lie idle, beside a load.

use std::io::{Read, Write};
use std::net::TcpStream;

use anyhow::{Context, Result};

use super::{Plan, dial, exchange};
use crate::hello::ClientHello;
use crate::netns::Namespace;

/// Connections that stay open.
#[derive(Debug)]
pub struct Held {
    streams: Vec<TcpStream>,
}

impl Held {
    /// Opens this many, one after the other, as the plan says to whom and by which names. The server needs a thread for
    /// each of them.
    pub fn open(namespace: &Namespace, plan: &Plan, count: usize) -> Result<Self> {
        let streams = namespace.enter(|| {
            (0..count)
                .map(|number| {
                    let from = plan.from[number % plan.from.len()];
                    let name = &plan.names[number % plan.names.len()];
                    let mut stream = dial(from, plan.to)?;
                    exchange(&mut stream, &ClientHello::new(name).record(), &mut || ())?;
                    Ok(stream)
                })
                .collect::<Result<Vec<_>>>()
        })??;
        Ok(Self { streams })
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.streams.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.streams.is_empty()
    }

    /// Says something over each and waits for the echo; how many still carry it.
    pub fn alive(&mut self) -> usize {
        let echo = |stream: &mut TcpStream| -> Result<()> {
            let said = *b"still here";
            let mut heard = [0; 10];
            stream.write_all(&said)?;
            stream.read_exact(&mut heard)?;
            (heard == said).then_some(()).context("another echo")
        };
        let streams = self.streams.iter_mut();
        streams.filter_map(|stream| echo(stream).ok()).count()
    }
}
