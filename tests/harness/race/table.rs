//! The table the README shows.

use super::datapath::Kind;
use super::measure::Figures;
use super::results::{Metric, RATIOS, Results, Spread};
use super::stage::CLIENTS;
use super::targets;

/// Contestants in columns, in this order.
const COLUMNS: [Kind; 4] = [Kind::Postern, Kind::Haproxy, Kind::Nginx, Kind::Squid];

/// Markdown: what Postern is held to, ratios to plain NAT, then what has no ratio.
pub fn markdown(results: &Results) -> String {
    let mut text = String::new();
    if results.rounds.is_empty() {
        postern_alone(&mut text, results);
        return text;
    }
    text.push_str(&conditions(results));
    text.push_str(&targets::markdown(results));
    text.push_str(
        "\n| ratio to plain NAT, same round | Postern | HAProxy | nginx | Squid |\n|---|---|---|---|---|\n",
    );
    for metric in RATIOS.iter().filter(|metric| metric.key != "errors") {
        row(&mut text, results, metric.title, |kind| {
            ratio(results.ratio(kind, metric.value))
        });
    }
    let added = [
        Metric {
            key: "",
            title: "added latency at 500/s, p50, µs",
            value: |f| f.paced.p50_us,
        },
        Metric {
            key: "",
            title: "added latency at 500/s, p99, µs",
            value: |f| f.paced.p99_us,
        },
    ];
    for metric in added {
        row(&mut text, results, metric.title, |kind| {
            whole(results.added(kind, metric.value))
        });
    }
    without_ratio(&mut text, results);
    postern_alone(&mut text, results);
    text
}

/// Rows of what has no ratio to plain NAT.
fn without_ratio(text: &mut String, results: &Results) {
    row(text, results, "refusal, hello to close, p50, µs", |kind| {
        whole(results.absolute(kind, |f| f.refused.p50_us))
    });
    row(text, results, "refusal, hello to close, p99, µs", |kind| {
        whole(results.absolute(kind, |f| f.refused.p99_us))
    });
    row(text, results, "user memory per idle flow, bytes", |kind| {
        let weight = results.memory.iter().find(|weight| weight.kind == kind);
        weight.map_or_else(|| "–".into(), |weight| format!("{:.0}", weight.idle_user))
    });
    row(text, results, "failed exchanges", |kind| {
        let failed: u64 = results
            .rounds
            .iter()
            .filter_map(|r| r.of(kind))
            .map(Figures::errors)
            .sum();
        failed.to_string()
    });
}

/// What the figures come from, in a sentence or two.
fn conditions(results: &Results) -> String {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let cpu = read("/proc/cpuinfo");
    let model = cpu.lines().find_map(|line| line.strip_prefix("model name"));
    let model = model.map_or("unknown processor", |model| {
        model.trim_start_matches(['\t', ' ', ':'])
    });
    let disturbed = results
        .rounds
        .iter()
        .filter(|round| round.disturbed)
        .count();
    let calm = match disturbed {
        0 => "nothing else ran when they began".to_owned(),
        some => format!("{some} of them began while something else ran"),
    };
    format!(
        "Medians of {} rounds, in brackets the smallest and the largest; {calm}. {} processors of {model}, Linux {}.\n\n",
        results.rounds.len(),
        std::thread::available_parallelism().map_or(0, usize::from),
        read("/proc/sys/kernel/osrelease")
            .trim()
            .split('-')
            .next()
            .unwrap_or_default(),
    )
}

fn postern_alone(text: &mut String, results: &Results) {
    let weight = results
        .memory
        .iter()
        .find(|weight| weight.kind == Kind::Postern);
    let undecided = weight.and_then(|weight| weight.undecided_user);
    if let (Some(weight), Some(undecided)) = (weight, undecided) {
        text.push_str(&format!("\nPostern with its witness takes {:.0} MB before the first flow, and {undecided:.0} bytes more for a flow that has sent half a hello.\n",
            weight.base as f64 / 1e6
        ));
    }
    if !results.extra.sizes.is_empty() {
        text.push_str("\n| policy | firewall CPU per connection, µs | p50 at 500/s, µs | memory, MB |\n|---|---|---|---|\n");
    }
    for size in &results.extra.sizes {
        text.push_str(&format!(
            "| {} names, {} clients | {:.1} | {:.0} | {:.0} |\n",
            size.names,
            size.clients + u32::from(CLIENTS),
            size.cpu_per_connection,
            size.p50_us,
            size.resident as f64 / 1e6
        ));
    }
    if let Some((calm, changed)) = results.extra.reload {
        text.push_str(&format!("\nA new policy of the largest size adopted under 500 connections/s: p50 {:.0} → {:.0} µs, p99 {:.0} → {:.0} µs, \
             longest {:.1} → {:.1} ms, failed {} → {}.\n",
            calm.p50_us,
            changed.p50_us,
            calm.p99_us,
            changed.p99_us,
            calm.max_us / 1e3,
            changed.max_us / 1e3,
            calm.errors,
            changed.errors
        ));
    }
}

fn row(text: &mut String, results: &Results, title: &str, cell: impl Fn(Kind) -> String) {
    let cell = |kind: Kind| {
        if results.left_out.contains(&kind) {
            "did not start".to_owned()
        } else {
            cell(kind)
        }
    };
    let cells: Vec<String> = COLUMNS.into_iter().map(cell).collect();
    text.push_str(&format!("| {title} | {} |\n", cells.join(" | ")));
}

fn ratio(spread: Option<Spread>) -> String {
    spread.map_or_else(
        || "–".into(),
        |s| format!("{:.2} ({:.2}–{:.2})", s.median, s.min, s.max),
    )
}

fn whole(spread: Option<Spread>) -> String {
    spread.map_or_else(
        || "–".into(),
        |s| format!("{:.0} ({:.0}–{:.0})", s.median, s.min, s.max),
    )
}
