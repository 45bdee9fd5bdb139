//! The line each side begins with (RFC 4253, section 4.2).

use policy::Reason;

use crate::escape::escape;
use crate::progress::Progress;

/// Greatest identification line, its line end included.
const LINE_MAX: usize = 255;
/// Greatest sum of the lines a server may send before its identification.
pub const PRE_BANNER_MAX: usize = 8 * 1024;

const PREFIX: &[u8] = b"SSH-";
const VERSION_2: &[u8] = b"2.0-";

/// One side's identification line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identification {
    /// Software version and comments: what follows `SSH-2.0-`, escaped and capped at 253 bytes.
    pub software: Box<str>,
    /// Stream bytes up to its end, line end and lines in front of it included.
    pub bytes: usize,
}

/// Reads the client's identification, which must be the first thing it sends.
#[must_use]
pub fn client_identification(stream: &[u8]) -> Progress<Identification> {
    line(stream, 0)
}

/// Reads the server's identification, before which it may send lines of its own.
#[must_use]
pub fn server_identification(stream: &[u8]) -> Progress<Identification> {
    match lines_before(stream) {
        Ok((start, true)) => line(stream.get(start..).unwrap_or_default(), start),
        Ok((_, false)) => Progress::Incomplete,
        Err(reason) => Progress::Refused(reason),
    }
}

/// Stream bytes of the whole lines in front of the server's identification, and whether that
/// has begun.
///
/// # Errors
///
/// Too many bytes, or a NUL among them.
pub(super) fn lines_before(stream: &[u8]) -> Result<(usize, bool), Reason> {
    let mut start = 0;
    loop {
        let rest = stream.get(start..).unwrap_or_default();
        let begun = rest.get(..PREFIX.len()).unwrap_or(rest);
        if begun == PREFIX {
            return Ok((start, true));
        }
        let end = rest
            .iter()
            .position(|&byte| byte == b'\n')
            .map(|end| end + 1);
        let line = rest.get(..end.unwrap_or(rest.len())).unwrap_or_default();
        if start + line.len() > PRE_BANNER_MAX || line.contains(&0) {
            return Err(Reason::SshMalformed);
        }
        if end.is_none() {
            return Ok((start, false));
        }
        start += line.len();
    }
}

/// Reads one identification line; `before` bytes of the stream stand in front of it.
fn line(stream: &[u8], before: usize) -> Progress<Identification> {
    let head = stream.get(..LINE_MAX).unwrap_or(stream);
    let end = head.iter().position(|&byte| byte == b'\n');
    let text = head.get(..end.unwrap_or(head.len())).unwrap_or_default();
    // CR may only stand before LF; while LF is not there, a CR at the end may yet be legal.
    let text = text.strip_suffix(b"\r").unwrap_or(text);
    if let Err(reason) = judge(text, end.is_some()) {
        return Progress::Refused(reason);
    }
    match end {
        Some(end) => {
            let software = text
                .get(PREFIX.len() + VERSION_2.len()..)
                .unwrap_or_default();
            Progress::Complete(Identification {
                software: escape(software),
                bytes: before + end + 1,
            })
        }
        None if head.len() == LINE_MAX => Progress::Refused(Reason::SshMalformed),
        None => Progress::Incomplete,
    }
}

/// Judges a line without its end, which may be only the beginning of one.
fn judge(text: &[u8], is_whole: bool) -> Result<(), Reason> {
    let (prefix, rest) = text.split_at_checked(PREFIX.len()).unwrap_or((text, &[]));
    if !PREFIX.starts_with(prefix) || !text.iter().all(|byte| matches!(byte, 0x20..=0x7e)) {
        return Err(Reason::SshMalformed);
    }
    let (version, software) = rest
        .split_at_checked(VERSION_2.len())
        .unwrap_or((rest, &[]));
    if !VERSION_2.starts_with(version) {
        return Err(Reason::SshVersion);
    }
    // RFC 4253, section 4.2: a software version is there and begins right after the hyphen.
    let named = software.first().map(|&first| first != b' ');
    if named == Some(false) || (is_whole && named.is_none()) {
        return Err(Reason::SshMalformed);
    }
    Ok(())
}
