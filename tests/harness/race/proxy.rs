//! The peers: proxies that read the server name, each configured as its documentation says for a transparent filter.

use std::fmt::Write as _;
use std::os::unix::fs::PermissionsExt;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::datapath::Kind;
use super::stage::{INSIDE, NAMES, Stage, address_of, name};
use crate::wait;

const PORT: u16 = 8443;

/// A running proxy, its rules beside it.
#[derive(Debug)]
pub struct Proxy {
    child: Child,
}

impl Proxy {
    /// Starts it and redirects port 443 to it.
    pub fn start(stage: &Stage, kind: Kind, one_core: bool) -> Result<Self> {
        let workers = if one_core { 1 } else { 2 };
        let mut command = match kind {
            Kind::Haproxy => haproxy(stage, workers)?,
            Kind::Nginx => nginx(stage, workers)?,
            Kind::Squid => squid(stage, workers)?,
            Kind::Nat | Kind::Postern | Kind::Before => bail!("{} is no proxy", kind.name()),
        };
        let rules = format!(
            "table ip race_proxy {{ chain pre {{ type nat hook prerouting priority -100; \
             iifname {INSIDE} tcp dport 443 redirect to :{PORT}; }}; }}"
        );
        stage.firewall.feed("nft", &["-f", "-"], &rules)?;
        let log = stage.file(&format!("{}.log", kind.name()));
        let out = std::fs::File::create(&log).context("its log")?;
        let child = command
            .stdin(Stdio::null())
            .stdout(out.try_clone().context("its log")?)
            .stderr(out)
            .spawn()
            .with_context(|| format!("starting {}", kind.name()))?;
        let this = Self { child };
        // Not by connecting: a proxy that goes to the original destination would find itself there, for ever.
        let listens = || {
            let port = format!("sport = :{PORT}");
            let sockets = stage.firewall.run("ss", &["-Hltn", &port]);
            sockets.is_ok_and(|sockets| !sockets.trim().is_empty())
        };
        if !wait::holds(Duration::from_secs(20), listens) {
            bail!(
                "{} does not listen: {}",
                kind.name(),
                last_words(stage, kind)
            );
        }
        Ok(this)
    }

    /// It and its workers.
    pub fn pids(&self) -> Vec<u32> {
        descendants(self.child.id())
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        // The master first, or it would start new workers on the shared port.
        for pid in descendants(self.child.id()) {
            // Gone already is as good.
            drop(
                Command::new("kill")
                    .args(["-KILL", &pid.to_string()])
                    .stderr(Stdio::null())
                    .status(),
            );
        }
        drop(self.child.wait());
    }
}

/// The end of what a proxy wrote, on one line: to its standard output, and to the log that Squid keeps of its own.
fn last_words(stage: &Stage, kind: Kind) -> String {
    let files = [format!("{}.log", kind.name()), "squid.cache.log".to_owned()];
    let own = files.iter().take(if kind == Kind::Squid { 2 } else { 1 });
    let lines: Vec<String> = own
        .filter_map(|file| std::fs::read_to_string(stage.file(file)).ok())
        .flat_map(|text| text.lines().map(str::to_owned).collect::<Vec<_>>())
        .filter(|line| !line.trim().is_empty())
        .collect();
    let from = lines.len().saturating_sub(3);
    lines.get(from..).unwrap_or_default().join(" / ")
}

/// A process and everything it started.
pub fn descendants(pid: u32) -> Vec<u32> {
    let mut all = vec![pid];
    let mut next = 0;
    while let Some(&parent) = all.get(next) {
        next += 1;
        let Ok(threads) = std::fs::read_dir(format!("/proc/{parent}/task")) else {
            continue;
        };
        for thread in threads.flatten() {
            let children =
                std::fs::read_to_string(thread.path().join("children")).unwrap_or_default();
            all.extend(
                children
                    .split_whitespace()
                    .filter_map(|child| child.parse::<u32>().ok()),
            );
        }
    }
    all
}

fn haproxy(stage: &Stage, threads: u32) -> Result<Command> {
    let list: String = (0..NAMES).map(|n| name(n) + "\n").collect();
    let names = stage.file("haproxy.names");
    std::fs::write(&names, list).context("writing the names")?;
    let text = format!(
        "global\n  nbthread {threads}\n  maxconn 7900\ndefaults\n  mode tcp\n  timeout connect 5s\n  \
         timeout client 60s\n  timeout server 60s\nfrontend in\n  bind 0.0.0.0:{PORT}\n  \
         tcp-request inspect-delay 5s\n  \
         tcp-request content accept if {{ req.ssl_hello_type 1 }} {{ req.ssl_sni -f {} }}\n  \
         tcp-request content reject if {{ req.ssl_hello_type 1 }}\n  default_backend out\n\
         backend out\n  server original 0.0.0.0:0\n",
        names.display()
    );
    let config = stage.file("haproxy.cfg");
    std::fs::write(&config, text).context("writing haproxy.cfg")?;
    let mut command = stage.firewall.command("haproxy");
    command.args(["-db", "-q", "-f"]).arg(config);
    Ok(command)
}

fn nginx(stage: &Stage, workers: u32) -> Result<Command> {
    let mut map = String::new();
    for number in 0..NAMES {
        // Under redirection nginx cannot learn where the client was going, so the map says it.
        writeln!(map, "    {} {}:443;", name(number), address_of(number))?;
    }
    let text = format!(
        "load_module /usr/lib/nginx/modules/ngx_stream_module.so;\ndaemon off;\nuser root;\nworker_processes {workers};\n\
         worker_rlimit_nofile 20000;\npid {pid};\nerror_log {log} crit;\n\
         events {{ worker_connections 9900; }}\nstream {{\n  map_hash_max_size 8192;\n  \
         map $ssl_preread_server_name $to {{\n    default \"\";\n{map}  }}\n  \
         server {{ listen {PORT} reuseport backlog=4096; ssl_preread on; proxy_pass $to; }}\n}}\n",
        pid = stage.file("nginx.pid").display(),
        log = stage.file("nginx.error").display()
    );
    let config = stage.file("nginx.conf");
    std::fs::write(&config, text).context("writing nginx.conf")?;
    let mut command = stage.firewall.command("nginx");
    command
        .arg("-p")
        .arg(stage.file(""))
        .args(["-e", "stderr", "-c"])
        .arg(config);
    Ok(command)
}

fn squid(stage: &Stage, workers: u32) -> Result<Command> {
    let mut hosts = String::new();
    let mut names = String::new();
    for number in 0..NAMES {
        writeln!(hosts, "{} {}", address_of(number), name(number))?;
        writeln!(names, "{}", name(number))?;
    }
    std::fs::write(stage.file("squid.hosts"), hosts).context("writing the hosts")?;
    std::fs::write(stage.file("squid.names"), names).context("writing the names")?;
    let certificate = stage.file("squid.pem");
    let path = certificate.to_str().context("a path in UTF-8")?;
    stage.firewall.run(
        "openssl",
        &[
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
            "-nodes",
            "-days",
            "2",
            "-subj",
            "/CN=race",
            "-keyout",
            path,
            "-out",
            &format!("{path}.crt"),
        ],
    )?;
    let mut both = std::fs::read(format!("{path}.crt")).context("reading the certificate")?;
    both.extend(std::fs::read(path).context("reading its key")?);
    std::fs::write(path, both).context("writing both")?;
    let log = open_to_squid(stage)?;
    let text = format!(
        "workers {workers}\ncache_effective_user proxy\ncache_effective_group proxy\nhttp_port 3128\n\
         https_port {PORT} intercept ssl-bump generate-host-certificates=off tls-cert={path}\nhosts_file {hosts}\npid_filename {pid}\n\
         acl step1 at_step SslBump1\nacl listed ssl::server_name \"{names}\"\nssl_bump peek step1\n\
         ssl_bump splice listed\nssl_bump terminate all\nhttp_access allow all\ncache deny all\n\
         access_log none\ncache_log {log}\nshutdown_lifetime 0 seconds\nmax_filedescriptors 16000\n\
         memory_pools off\ncoredump_dir {folder}\nlogfile_rotate 0\npinger_enable off\n",
        hosts = stage.file("squid.hosts").display(),
        names = stage.file("squid.names").display(),
        pid = stage.file("squid.pid").display(),
        log = log.display(),
        folder = stage.file("").display(),
    );
    let config = stage.file("squid.conf");
    std::fs::write(&config, text).context("writing squid.conf")?;
    let mut command = stage.firewall.command("squid");
    command.args(["--foreground", "-f"]).arg(config);
    Ok(command)
}

/// It refuses to run as root, and its own user has to read what was written for it and to write its log: where that is.
///
/// Its processes talk through sockets in `/run/squid`, which the namespace's own `/run` does not have; with one worker
/// there is nobody to talk to.
fn open_to_squid(stage: &Stage) -> Result<std::path::PathBuf> {
    let sockets = ["-d", "-o", "proxy", "-g", "proxy", "/run/squid"];
    stage.firewall.run("install", &sockets)?;
    // That of the last one, which was killed; its number may be somebody else's by now.
    match std::fs::remove_file(stage.file("squid.pid")) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(error).context("removing the last squid.pid");
        }
        Ok(()) | Err(_) => {}
    }
    let log = stage.file("squid.cache.log");
    std::fs::write(&log, "").context("writing its log")?;
    for (path, mode) in [
        (stage.file(""), 0o755),
        (log.clone(), 0o666),
        (stage.file("squid.pem"), 0o644),
    ] {
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode))
            .with_context(|| format!("opening {} to squid", path.display()))?;
    }
    Ok(log)
}
