//! `postern explain`: which rule decides, and why.

use ipc::control::{Explanation, Question, Reply, Request};
use policy::Snapshot;

use super::status::{ask, unexpected};
use crate::cli::{ExplainArgs, Failure, Finding, print};
use crate::clock::unix_ms;
use crate::provider::FileProvider;

/// Explains one connection; exit code 1 when it would be refused.
pub(crate) fn run(args: &ExplainArgs) -> Result<Finding, Failure> {
    let question = question(args)?;
    let explanation = match &args.inventory {
        Some(path) => {
            let draft = FileProvider::new(path).read().map_err(Failure::input)?;
            let policy = Snapshot::compile(draft, 0).map_err(Failure::input)?;
            crate::explain::explain(&policy, &question, unix_ms(), None).map_err(Failure::input)?
        }
        None => {
            let reply = ask(args.config.as_deref(), &Request::Explain(question))?;
            let Reply::Explained(explanation) = reply else {
                return Err(unexpected(&reply));
            };
            explanation
        }
    };
    if args.json {
        let json = serde_json::to_string(&explanation).map_err(Failure::machine)?;
        print(&format!("{json}\n"));
    } else {
        print(&text(&explanation));
    }
    Ok(if explanation.allowed {
        Finding::None
    } else {
        Finding::Some
    })
}

fn question(args: &ExplainArgs) -> Result<Question, Failure> {
    let default_port = args.kind.port();
    let (name, port) = match args.name.rsplit_once(':') {
        Some((name, port)) => {
            let port = port.parse().map_err(|_| {
                Failure::input(format!("\"{port}\" in \"{}\" is not a port", args.name))
            })?;
            (name, port)
        }
        None => (args.name.as_str(), default_port),
    };
    Ok(Question {
        source: args.src,
        kind: args.kind.as_str().to_owned(),
        name: name.to_owned(),
        port,
        destination: args.dst,
    })
}

fn text(explanation: &Explanation) -> String {
    let mut text = match (&explanation.reason, &explanation.gid, &explanation.rule) {
        (None, Some(gid), Some(rule)) => format!("allowed by {gid} rule {rule}\n"),
        (Some(reason), ..) => format!("refused: {reason}\n"),
        (None, ..) => "allowed\n".to_owned(),
    };
    for step in &explanation.steps {
        text += &format!("  {step}\n");
    }
    text
}
