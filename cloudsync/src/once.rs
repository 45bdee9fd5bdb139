//! `postern-cloudsync once`: one reading, printed.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::rc::Rc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use ipc::control::{Document, Hello, Reply, Request};
use ipc::socket::Client;
use policy::{Draft, Entry, Snapshot};

use crate::assemble::Publication;
use crate::aws::Session;
use crate::cloud::{Cloud, Store};
use crate::config::{Config, ProviderKind};
use crate::documents::Documents;
use crate::file::{FileCloud, NoStore};
use crate::gcp::{Gcp, Secrets};
use crate::sync::{draft, references};

/// How long the daemon may take to adopt.
const ANSWER_TIME: Duration = Duration::from_secs(30);

/// What to do with the one reading.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Where to read; the configuration's provider by default.
    #[arg(long, value_name = "PROVIDER")]
    provider: Option<ProviderKind>,
    /// The configuration; /etc/postern/cloudsync.toml if it is there.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Print only; publish nothing.
    #[arg(long)]
    dry_run: bool,
    /// Print the names of the policy, one a line, for resolver policies, instead of the snapshot.
    #[arg(long)]
    print_names: bool,
}

/// Reads, prints and, unless told not to, publishes.
///
/// # Errors
///
/// When the cloud, the policy or the daemon will not.
pub(crate) async fn once(options: Options) -> anyhow::Result<ExitCode> {
    let config = Config::load(options.config.as_deref())?;
    let config = Rc::new(config);
    let draft = match options.provider.unwrap_or(config.provider) {
        ProviderKind::Aws => {
            let session = Session::load(&config).await;
            let cloud = session.cloud(&config).await;
            read(&config, &cloud, Some(session.store())).await?
        }
        ProviderKind::File => {
            let cloud = FileCloud::new(config.file.inventory.clone());
            read(&config, &cloud, None::<NoStore>).await?
        }
        ProviderKind::Gcp => {
            let cloud = Gcp::new(&config).await?;
            read(&config, &cloud, Some(Secrets::new(&config).await?)).await?
        }
    };
    let publication = Publication::new(draft)?;
    print(&publication, options.print_names)?;
    if !options.dry_run {
        publish(&config, &publication)?;
    }
    Ok(if publication.draft.faults.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(1)
    })
}

/// One reading of the cloud, and of the documents it refers to.
async fn read<C: Cloud, D: Store + 'static>(
    config: &Rc<Config>,
    cloud: &C,
    store: Option<D>,
) -> anyhow::Result<Draft> {
    let answer = cloud.read().await?;
    let mut documents = Documents::new(store.map(Rc::new), Rc::clone(config));
    let kept = documents.refresh(&references(&answer)).await;
    Ok(draft(&answer, &kept))
}

/// The snapshot on standard output, faults on standard error.
fn print(publication: &Publication, names: bool) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    if names {
        for name in names_of(publication)? {
            writeln!(out, "{name}")?;
        }
    } else {
        let document: serde_json::Value = serde_json::from_str(&publication.json)?;
        writeln!(out, "{document:#}")?;
    }
    let mut err = std::io::stderr().lock();
    for fault in &publication.draft.faults {
        writeln!(err, "postern-cloudsync: {fault}")?;
    }
    Ok(())
}

/// Every exact name and pattern, sorted.
fn names_of(publication: &Publication) -> anyhow::Result<Vec<String>> {
    let snapshot = Snapshot::compile(publication.draft.clone(), 0)?;
    let mut names: Vec<String> = snapshot.exact_names().map(ToString::to_string).collect();
    let rules = publication
        .draft
        .groups
        .iter()
        .flat_map(|group| &group.rules);
    names.extend(
        rules
            .flat_map(|rule| &rule.entries)
            .filter_map(|entry| match entry {
                Entry::Pattern { pattern, .. } => Some(pattern.as_str().to_owned()),
                Entry::Name { .. } | Entry::Address { .. } | Entry::SeeThru { .. } => None,
            }),
    );
    names.sort_unstable();
    names.dedup();
    Ok(names)
}

/// Hands it to the daemon and waits until it is in force.
fn publish(config: &Config, publication: &Publication) -> anyhow::Result<()> {
    let program = concat!("postern-cloudsync once ", env!("CARGO_PKG_VERSION"));
    let mut daemon = Client::connect(
        &config.control_socket,
        Hello::new(program, false),
        ANSWER_TIME,
    )?;
    let document = Document::from_json(publication.json.clone()).context("the snapshot")?;
    match daemon.call(&Request::Publish(document))? {
        Reply::Adopted(adopted) => {
            tracing::info!(adopted.generation, adopted.policy_id, "adopted");
            Ok(())
        }
        Reply::Rejected(rejected) => bail!(
            "the daemon rejects it: {}: {}",
            rejected.place,
            rejected.why
        ),
        Reply::Refused { why } => bail!("the daemon refuses: {why}"),
        other @ (Reply::Welcome(_)
        | Reply::Noted
        | Reply::Status(_)
        | Reply::Explained(_)
        | Reply::Bindings(_)) => {
            bail!("the daemon answered something else: {other:?}")
        }
    }
}
