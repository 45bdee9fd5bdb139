//! From a record to its line.
//!
//! [`flow_line`] is the record in the words of the published schema. [`write_flow`] and [`write_end`] write the same
//! bytes without making that first: a connection has three lines in the logs and one in the ledger, and at ten thousand
//! connections a second their keys, copies and formatter calls were a large part of all the daemon did.

use std::io::Write;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use inspect::{Category, FlowRecord, Outcome};
#[cfg(test)]
use ipc::record::EndLineV1;
use ipc::record::{FlowCat, FlowLineV1, FlowOutcome, TEXT_BYTES_MAX, Text, Timestamp, append_line};
use policy::AppProto;

use super::EndRecord;

/// A record in the words of the published schema.
pub fn flow_line(record: &FlowRecord, appliance: &Text) -> FlowLineV1 {
    let text = |value: &Arc<str>| Text::from(value);
    let (outcome, reason) = match record.outcome {
        Outcome::Allowed => {
            let gid = record.gid.as_ref().map(text);
            (FlowOutcome::Allowed, gid.unwrap_or_else(|| Text::from("")))
        }
        Outcome::Disallowed(reason) => (FlowOutcome::Disallowed, Text::from(reason.as_str())),
    };
    let dhost = record.dhost.as_ref().map(text);
    let see_thru = record.see_thru.as_ref();
    let http = record.http.as_ref();
    let (src, dst): (SocketAddr, SocketAddr) = (record.src, record.dst);
    FlowLineV1 {
        time: Timestamp::from_unix_ms(record.unix_ms),
        cat: match record.category {
            Category::Client => FlowCat::Client,
            Category::Server => FlowCat::Server,
        },
        outcome,
        reason,
        dhost: dhost.unwrap_or_else(|| Text::from(server(record).to_string())),
        src: src.ip(),
        spt: src.port(),
        dst: dst.ip(),
        dpt: dst.port(),
        proto: Text::from(record.proto.as_str()),
        proto_v: (!record.proto_v.is_empty()).then(|| Text::from(record.proto_v)),
        instance: record.instance.as_ref().map(text),
        gid: record.gid.as_ref().map(text),
        rule: record.rule.as_ref().map(text),
        generation: record.generation,
        policy_id: text(&record.policy_id),
        appliance: appliance.clone(),
        pqc: (record.proto == AppProto::Tls).then_some(record.pqc),
        rescued: record.rescued.then_some(true),
        see_thru_exerted: see_thru.map(|see_thru| see_thru.exerted),
        see_thru_gid: see_thru.map(|see_thru| text(&see_thru.gid)),
        see_thru_days_remaining: see_thru.map(|see_thru| see_thru.days_remaining),
        would_reason: record
            .would_reason
            .map(|reason| Text::from(reason.as_str())),
        http_method: http.map(|http| Text::from(&*http.method)),
        http_path: http.map(|http| Text::from(&*http.path)),
        http_user_agent: http.map(|http| Text::from(&*http.user_agent)),
        http_code: http.and_then(|http| http.code),
    }
}

/// The end of a flow in the words of the published schema, which [`write_end`] is held to.
#[cfg(test)]
pub(super) fn end_line(record: &EndRecord, appliance: &Text) -> EndLineV1 {
    let mut flow = flow_line(&record.flow, appliance);
    flow.cat = FlowCat::End;
    flow.time = Timestamp::from_unix_ms(record.unix_ms);
    EndLineV1 {
        flow,
        bytes_out: record.bytes_out,
        bytes_in: record.bytes_in,
        packets_out: record.packets_out,
        packets_in: record.packets_in,
        duration_ms: record.duration_ms,
    }
}

/// Who did not open the flow.
fn server(record: &FlowRecord) -> IpAddr {
    match record.category {
        Category::Client => record.dst.ip(),
        Category::Server => record.src.ip(),
    }
}

/// Appends [`flow_line`] as a line.
pub(super) fn write_flow(out: &mut Vec<u8>, record: &FlowRecord, appliance: &str) {
    write_object(out, record, appliance);
    out.extend_from_slice(b"}\n");
}

/// Appends the end of a flow, an `EndLineV1`, as a line.
pub(super) fn write_end(out: &mut Vec<u8>, record: &EndRecord, appliance: &str) {
    let mut line = Fields(out);
    line.fields(&record.flow, ("end", record.unix_ms), appliance);
    line.number(",\"bytes_out\":", record.bytes_out);
    line.number(",\"bytes_in\":", record.bytes_in);
    line.number(",\"packets_out\":", record.packets_out);
    line.number(",\"packets_in\":", record.packets_in);
    line.number(",\"duration_ms\":", record.duration_ms);
    out.extend_from_slice(b"}\n");
}

/// Appends [`flow_line`] as an object whose closing brace is left to the caller.
pub fn write_object(out: &mut Vec<u8>, record: &FlowRecord, appliance: &str) {
    let head = (record.category.as_str(), record.unix_ms);
    Fields(out).fields(record, head, appliance);
}

/// Appends an address and its port in quotes, as `serde` writes a [`SocketAddr`].
pub fn write_socket(out: &mut Vec<u8>, socket: SocketAddr) {
    let mut value = Fields(out);
    match socket.ip() {
        address @ IpAddr::V4(_) => {
            value.address("", address);
            // Its closing quote comes behind the port.
            out.pop();
            out.push(b':');
            Fields(out).number("", socket.port());
            out.push(b'"');
        }
        IpAddr::V6(_) => value.shown(socket),
    }
}

/// A line that is being written. Keys come with the comma in front of them and the colon behind.
struct Fields<'a>(&'a mut Vec<u8>);

impl Fields<'_> {
    fn fields(&mut self, record: &FlowRecord, (cat, unix_ms): (&str, u64), appliance: &str) {
        self.raw("{\"time\":\"");
        let time = Timestamp::from_unix_ms(unix_ms);
        self.0.extend_from_slice(&time.to_bytes());
        self.raw("\",\"cat\":\"");
        self.raw(cat);
        let (outcome, reason) = match &record.outcome {
            Outcome::Allowed => ("allowed", record.gid.as_deref().unwrap_or_default()),
            Outcome::Disallowed(reason) => ("disallowed", reason.as_str()),
        };
        self.raw("\",\"outcome\":\"");
        self.raw(outcome);
        self.text("\",\"reason\":", reason);
        match &record.dhost {
            Some(name) => self.text(",\"dhost\":", name),
            None => self.address(",\"dhost\":", server(record)),
        }
        self.address(",\"src\":", record.src.ip());
        self.number(",\"spt\":", record.src.port());
        self.address(",\"dst\":", record.dst.ip());
        self.number(",\"dpt\":", record.dst.port());
        self.text(",\"proto\":", record.proto.as_str());
        if !record.proto_v.is_empty() {
            self.text(",\"proto_v\":", record.proto_v);
        }
        self.some(",\"instance\":", record.instance.as_deref());
        self.some(",\"gid\":", record.gid.as_deref());
        self.some(",\"rule\":", record.rule.as_deref());
        self.number(",\"generation\":", record.generation);
        self.text(",\"policy_id\":", &record.policy_id);
        self.text(",\"appliance\":", appliance);
        self.rare(record);
    }

    /// What few records have, `pqc` excepted.
    fn rare(&mut self, record: &FlowRecord) {
        if record.proto == AppProto::Tls {
            self.raw(if record.pqc {
                ",\"pqc\":true"
            } else {
                ",\"pqc\":false"
            });
        }
        if record.rescued {
            self.raw(",\"rescued\":true");
        }
        if let Some(see_thru) = &record.see_thru {
            self.raw(if see_thru.exerted {
                ",\"see_thru_exerted\":true"
            } else {
                ",\"see_thru_exerted\":false"
            });
            self.text(",\"see_thru_gid\":", &see_thru.gid);
            self.number(",\"see_thru_days_remaining\":", see_thru.days_remaining);
        }
        let would = record.would_reason.as_ref();
        self.some(",\"would_reason\":", would.map(|reason| reason.as_str()));
        if let Some(http) = &record.http {
            self.text(",\"http_method\":", &http.method);
            self.text(",\"http_path\":", &http.path);
            self.text(",\"http_user_agent\":", &http.user_agent);
            if let Some(code) = http.code {
                self.number(",\"http_code\":", code);
            }
        }
    }

    fn raw(&mut self, text: &str) {
        self.0.extend_from_slice(text.as_bytes());
    }

    fn some(&mut self, key: &str, value: Option<&str>) {
        if let Some(value) = value {
            self.text(key, value);
        }
    }

    /// Nearly every text is written as it is; what has to be cut or escaped takes the way of all other lines.
    fn text(&mut self, key: &str, value: &str) {
        self.raw(key);
        let is_plain = |byte: u8| matches!(byte, b' '..=b'~') && byte != b'"' && byte != b'\\';
        if value.len() <= TEXT_BYTES_MAX && value.bytes().all(is_plain) {
            self.0.push(b'"');
            self.raw(value);
            self.0.push(b'"');
        } else if append_line(self.0, &Text::from(value)).is_ok() {
            // The new line behind it.
            self.0.pop();
        }
    }

    fn number(&mut self, key: &str, value: impl itoa::Integer) {
        self.raw(key);
        self.raw(itoa::Buffer::new().format(value));
    }

    fn address(&mut self, key: &str, address: IpAddr) {
        self.raw(key);
        let IpAddr::V4(address) = address else {
            return self.shown(address);
        };
        let mut before = "\"";
        for byte in address.octets() {
            self.raw(before);
            self.raw(itoa::Buffer::new().format(byte));
            before = ".";
        }
        self.raw("\"");
    }

    /// In quotes; what is shown has none to escape.
    fn shown(&mut self, value: impl std::fmt::Display) {
        // Writing into memory does not fail.
        drop(write!(self.0, "\"{value}\""));
    }
}

#[cfg(test)]
mod tests;
