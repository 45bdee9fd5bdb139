//! A connection that both sides have proved, held open while something goes wrong.

use std::io::{Read as _, Write as _};
use std::process::{Child, ChildStdin, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use e2e::image::Stage;
use e2e::topology::{Family, RECORDER};
use e2e::wait;

use super::SOON;

/// OpenSSL's client, and a server that says every line backwards.
pub(super) struct Judged {
    client: Child,
    input: ChildStdin,
    said: Arc<Mutex<String>>,
    lines: u32,
}

impl Judged {
    /// Opens one and says something over it. An emulated machine may take longer to learn a name's addresses than a first
    /// packet is held, and then says no.
    pub(super) fn open(stage: &Stage) -> Result<Self> {
        let deadline = Instant::now() + SOON;
        loop {
            let mut this = Self::connect(stage)?;
            // The first answer shows that the server is content, the second that the kernel carries the flow.
            match this.says(TRY).and_then(|()| this.says(TRY)) {
                Err(_) if Instant::now() < deadline => std::thread::sleep(PAUSE),
                result => return result.context("opening a connection").map(|()| this),
            }
        }
    }

    fn connect(stage: &Stage) -> Result<Self> {
        let to = RECORDER.at(Family::V4, 443).to_string();
        let mut command = stage.topology.client.command("openssl");
        command.args(["s_client", "-quiet", "-connect", &to]);
        command.args(["-servername", RECORDER.name]);
        let mut client = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .context("starting openssl")?;
        let input = client.stdin.take().context("its input")?;
        let mut output = client.stdout.take().context("its output")?;
        let said = Arc::new(Mutex::new(String::new()));
        let sink = Arc::clone(&said);
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(length @ 1..) = output.read(&mut buffer) {
                let text = String::from_utf8_lossy(buffer.get(..length).unwrap_or_default());
                sink.lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .push_str(&text);
            }
        });
        Ok(Self {
            client,
            input,
            said,
            lines: 0,
        })
    }

    /// Another line goes out, and comes back backwards.
    pub(super) fn goes_on(&mut self) -> Result<()> {
        self.says(SOON)
    }

    fn says(&mut self, limit: Duration) -> Result<()> {
        self.lines += 1;
        let line = format!("line-{}", self.lines);
        writeln!(self.input, "{line}").context("writing to openssl")?;
        self.input.flush()?;
        let backwards: String = line.chars().rev().collect();
        let came = wait::holds(limit, || {
            let said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
            said.lines().any(|line| line == backwards)
        });
        ensure!(came, "{line} of a judged flow never came back");
        Ok(())
    }
}

impl Drop for Judged {
    fn drop(&mut self) {
        // Ended already is as good as killed.
        drop(self.client.kill());
        drop(self.client.wait());
    }
}

/// For one attempt to be answered.
const TRY: Duration = Duration::from_secs(20);
/// Between two attempts.
const PAUSE: Duration = Duration::from_millis(500);
