//! `/metrics`: every number of the daemon under its documented name (`firewall/METRICS.md`), in the OpenMetrics text
//! format.

use std::fmt;

use ipc::control::{StatusReply, WitnessState};
use policy::Reason;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{DescriptorEncoder, MetricEncoder};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;

use crate::appliance::Appliance;
use crate::ruleset::Counter;

/// The content type of what [`render`] returns.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// One name and its values.
#[derive(Debug)]
struct Series {
    name: &'static str,
    help: &'static str,
    kind: Kind,
    /// A label's value where the series has a label, and the number.
    points: Vec<(Option<String>, u64)>,
    label: &'static str,
}

/// A sample without labels.
type NoLabels = [(&'static str, &'static str); 0];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Counter,
    Gauge,
}

/// Everything, as it is now.
pub fn render(appliance: &Appliance) -> Result<String, fmt::Error> {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Readings(read(appliance))));
    let mut text = String::new();
    encode(&mut text, &registry)?;
    Ok(text)
}

#[derive(Debug)]
struct Readings(Vec<Series>);

impl Collector for Readings {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        for series in &self.0 {
            let kind = match series.kind {
                Kind::Counter => MetricType::Counter,
                Kind::Gauge => MetricType::Gauge,
            };
            let name = format!("postern_{}", series.name);
            let mut metric = encoder.encode_descriptor(&name, series.help, None, kind)?;
            for (value, number) in &series.points {
                match value {
                    None => encode_one(series.kind, *number, &mut metric)?,
                    Some(value) => {
                        let labels = [(series.label, value.as_str())];
                        let mut labelled = metric.encode_family(&labels)?;
                        encode_one(series.kind, *number, &mut labelled)?;
                    }
                }
            }
        }
        Ok(())
    }
}

fn encode_one(kind: Kind, number: u64, encoder: &mut MetricEncoder<'_>) -> fmt::Result {
    match kind {
        Kind::Counter => encoder.encode_counter::<NoLabels, _, u64>(&number, None),
        Kind::Gauge => encoder.encode_gauge(&i64::try_from(number).unwrap_or(i64::MAX)),
    }
}

fn read(appliance: &Appliance) -> Vec<Series> {
    let status = appliance.status();
    let mut series = gauges(appliance, &status);
    series.extend(counters(appliance, &status));
    series
}

fn gauges(appliance: &Appliance, status: &StatusReply) -> Vec<Series> {
    let mut gauges: Vec<Series> = policy_gauges(status)
        .into_iter()
        .chain(state_gauges(appliance, status))
        .chain([(
            "policy_adoption_milliseconds",
            "From the last policy being there to every packet being judged by it",
            appliance.adoption_ms(),
        )])
        .chain(appliance.parts().witness.totals().gauges())
        .map(|(name, help, value)| one(Kind::Gauge, name, help, value))
        .collect();
    let waiting = status.spool.iter();
    let waiting = waiting.map(|(stream, size)| (Some(stream.to_string()), size.bytes));
    let help = "Log lines that wait to be shipped";
    gauges.push(by_label(
        Kind::Gauge,
        "spool_bytes",
        help,
        "stream",
        waiting,
    ));
    gauges
}

type Plain = (&'static str, &'static str, u64);

fn policy_gauges(status: &StatusReply) -> [Plain; 8] {
    let in_force = u64::from(status.mode != "lockdown");
    let source_age = status.source_age_s.unwrap_or(0);
    let age = status.policy_age_s;
    [
        ("generation", "Policy in force", status.generation),
        ("policy_age_seconds", "Since the policy was adopted", age),
        (
            "policy_in_force",
            "1 with a policy, 0 in lockdown",
            in_force,
        ),
        (
            "source_age_seconds",
            "Since the publisher could read",
            source_age,
        ),
        ("clients", "Clients in the policy", status.clients),
        ("names", "Exact names in the policy", status.names),
        ("names_bound", "Names with an address", status.names_bound),
        ("faults", "Faults found in the policy", status.faults),
    ]
}

fn state_gauges(appliance: &Appliance, status: &StatusReply) -> [Plain; 7] {
    let fine = u64::from(appliance.data_plane_fault().is_none());
    let latched = u64::from(appliance.parts().kernel.is_latched());
    let answering = u64::from(matches!(status.witness, WitnessState::Answering));
    let clock = u64::from(appliance.clock_synchronised());
    [
        (
            "flows_undecided",
            "Flows being judged",
            status.flows_undecided,
        ),
        (
            "flows_judged",
            "Flows the kernel carries",
            status.flows_judged,
        ),
        (
            "uptime_seconds",
            "Since the daemon started",
            status.uptime_s,
        ),
        ("data_plane_ok", "1 while flows are judged", fine),
        ("latched", "1 while a foreign flush opens nothing", latched),
        ("witness_answering", "1 while resolvers answer", answering),
        (
            "clock_synchronised",
            "1 while the clock is kept right",
            clock,
        ),
    ]
}

fn counters(appliance: &Appliance, status: &StatusReply) -> Vec<Series> {
    let kernel = &appliance.parts().kernel;
    let (checks, repairs) = kernel.checks();
    let totals = appliance.parts().tally.totals().into_iter();
    let totals = totals.map(|(name, value)| (name, help_of(name), value));
    let ruleset = [
        ("ruleset_checks", "Times the ruleset was read back", checks),
        ("ruleset_repairs", "Times it was not ours", repairs),
    ];
    let mut counters: Vec<Series> = totals
        .chain(ruleset)
        .chain(appliance.parts().witness.totals().counters())
        .map(|(name, help, value)| one(Kind::Counter, name, help, value))
        .collect();
    let mut labelled = |name, help, label, points: &mut dyn Iterator<Item = (String, u64)>| {
        let points = points.map(|(value, number)| (Some(value), number));
        counters.push(by_label(Kind::Counter, name, help, label, points));
    };
    let mut refused = Reason::ALL.iter().map(|reason| {
        let count = status.refused.get(reason.as_str()).copied();
        (reason.as_str().to_owned(), count.unwrap_or(0))
    });
    labelled("refused", "Decisions to refuse", "reason", &mut refused);
    let spool = status.spool.iter();
    let mut lines = spool.map(|(stream, size)| (stream.to_string(), size.lines));
    labelled("log_lines", "Log lines written", "stream", &mut lines);
    let counts = appliance.parts().log.counts();
    let streams = status.spool.keys();
    let mut lost = streams.map(|stream| (stream.to_string(), counts.lost(*stream)));
    labelled("log_lines_lost", "Log lines lost", "stream", &mut lost);
    let certificates = appliance.parts().witness.totals().certificates();
    let mut certificates = certificates.map(|(outcome, count)| (outcome.to_owned(), count));
    let help = "Handshakes of our own to see certificates";
    labelled("certificate_checks", help, "outcome", &mut certificates);
    let in_kernel = kernel.counters();
    let mut dropped = Counter::ALL.iter().map(|counter| {
        let number = in_kernel.get(counter.name()).copied().unwrap_or(0);
        (counter.name().to_owned(), number)
    });
    let help = "Packets the ruleset dropped or refused";
    labelled("kernel_packets", help, "counter", &mut dropped);
    counters
}

fn by_label(
    kind: Kind,
    name: &'static str,
    help: &'static str,
    label: &'static str,
    points: impl Iterator<Item = (Option<String>, u64)>,
) -> Series {
    let points = points.collect();
    Series {
        name,
        help,
        kind,
        points,
        label,
    }
}

fn one(kind: Kind, name: &'static str, help: &'static str, value: u64) -> Series {
    let points = vec![(None, value)];
    Series {
        name,
        help,
        kind,
        points,
        label: "",
    }
}

/// What a total means, in a few words; the rest is in `METRICS.md`.
fn help_of(name: &str) -> &'static str {
    HELP.iter()
        .find(|(known, _)| *known == name)
        .map_or("See METRICS.md", |(_, help)| help)
}

const HELP: [(&str, &str); 19] = [
    (
        "gate_hits",
        "SYNs that passed the address gate as they came",
    ),
    (
        "familiar",
        "Connections whose SYN the kernel let through by itself",
    ),
    ("gate_misses", "SYNs held at the address gate"),
    (
        "dns_unsettled",
        "SYNs and claims dropped, name not learnt whole in time",
    ),
    (
        "dns_negative",
        "Flows refused, no look-up brought an address",
    ),
    (
        "dns_mismatch",
        "Flows refused, the name has other addresses",
    ),
    ("allowed", "Decisions to allow"),
    ("packets", "Packets judged"),
    ("dropped", "Packets dropped without a refusal"),
    ("judged", "Flows handed to the kernel"),
    ("asymmetric", "Flows of which one side only is seen"),
    ("rescued", "Flows allowed by a look-up of their own"),
    ("suppressed", "Refusals without a line of their own"),
    (
        "dns_budget",
        "SYNs dropped because the look-up budget was spent",
    ),
    ("client_pending", "SYNs of clients nobody knows yet"),
    ("queue_overruns", "Packets that found a queue's socket full"),
    ("queue_drops", "Packets that found a queue full"),
    (
        "flows_forgotten",
        "Allowed flows whose end will not be logged",
    ),
    ("conntrack_overruns", "Times conntrack events were lost"),
];
