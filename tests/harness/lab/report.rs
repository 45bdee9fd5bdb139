//! The lab's results, for people and for programs.

use serde_json::{Map, Value, json};

use super::attempts::Attempt;
use super::observe::Observed;

/// The columns' titles.
pub const HEADINGS: [&str; 8] = [
    "", "who", "attempt", "claims", "address", "verdict", "reason", "ms",
];

/// One row of the table.
pub fn row(attempt: &Attempt, observed: &Observed) -> [String; 8] {
    let line = observed.decision();
    let text = |field: &str| line.map(|line| line.text(field)).unwrap_or_default();
    let claims = if attempt.claims.is_empty() {
        "-"
    } else {
        attempt.claims
    };
    [
        if observed.as_expected(attempt) {
            "ok"
        } else {
            "NOT OK"
        }
        .to_owned(),
        attempt.who().to_owned(),
        attempt.title.to_owned(),
        claims.to_owned(),
        attempt.site.at(attempt.family, attempt.port).to_string(),
        text("outcome"),
        text("reason"),
        observed.time_to_verdict.map_or_else(
            || "-".to_owned(),
            |time| format!("{:.1}", time.as_secs_f64() * 1e3),
        ),
    ]
}

/// One attempt as a JSON object: the flow log's own fields, and what only the lab knows.
pub fn object(attempt: &Attempt, observed: &Observed) -> Value {
    let mut object = Map::new();
    object.insert("attempt".to_owned(), json!(attempt.title));
    object.insert("who".to_owned(), json!(attempt.who()));
    object.insert("claims".to_owned(), json!(attempt.claims));
    if let Some(Value::Object(fields)) = observed.decision().map(|line| &line.0) {
        object.extend(
            fields
                .iter()
                .map(|(key, value)| (key.clone(), value.clone())),
        );
    }
    let milliseconds = observed
        .time_to_verdict
        .map(|time| (time.as_secs_f64() * 1e6).round() / 1e3);
    object.insert("time_to_verdict_ms".to_owned(), json!(milliseconds));
    object.insert("served".to_owned(), json!(observed.served));
    object.insert("payload_left".to_owned(), json!(observed.left));
    object.insert(
        "as_expected".to_owned(),
        json!(observed.as_expected(attempt)),
    );
    Value::Object(object)
}

/// Rows as lines, every column as wide as its widest cell.
pub fn table(rows: &[[String; 8]]) -> Vec<String> {
    let headings = HEADINGS.map(str::to_owned);
    let all: Vec<&[String; 8]> = std::iter::once(&headings).chain(rows).collect();
    let mut widths = [0; 8];
    for row in &all {
        for (width, cell) in widths.iter_mut().zip(row.iter()) {
            *width = cell.chars().count().max(*width);
        }
    }
    all.iter()
        .map(|row| {
            let cells: Vec<String> = row
                .iter()
                .zip(widths)
                .map(|(cell, width)| format!("{cell:width$}"))
                .collect();
            cells.join("  ").trim_end().to_owned()
        })
        .collect()
}
