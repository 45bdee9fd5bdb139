//! External lists: names that somebody else keeps, referred to by a description.
//!
//! Entries are separated by commas or line breaks, `#` starts a comment, and a list holds no
//! references of its own. A list past a limit is refused whole; a bad entry is one fault.

use std::io::{self, Read as _};
use std::path::Path;

use crate::annotation::{ListReference, Span, named_entry};
use crate::{Entry, Fault, FaultKind, Kind, Preferences};

/// Bytes in the body of a list.
pub const LIST_BYTES_MAX: usize = 64 << 10;

/// Entries in a list.
pub const LIST_ENTRIES_MAX: usize = 5_000;

/// What a list says. The faults name no object: the description that refers to it does.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ListReading {
    /// What it allows.
    pub entries: Vec<Entry>,
    /// What is wrong with it.
    pub faults: Vec<Fault>,
}

/// Reads the body of a list whose entries are of a kind.
pub fn read(
    body: &str,
    kind: Kind,
    reference: &ListReference,
    preferences: &Preferences,
) -> ListReading {
    let name = reference.to_string();
    let mut reading = ListReading::default();
    let fault = |kind, text: &str, detail: String| Fault {
        list: Some(name.clone()),
        ..Fault::new("", kind, text, detail)
    };
    if body.len() > LIST_BYTES_MAX {
        let detail = format!("the list has {} bytes; at most 65536 are read", body.len());
        reading
            .faults
            .push(fault(FaultKind::ListTooLarge, "", detail));
        return reading;
    }
    let count = spans(body).count();
    if count > LIST_ENTRIES_MAX {
        let detail = format!("the list has {count} entries; at most 5000 are read");
        reading
            .faults
            .push(fault(FaultKind::ListTooLarge, "", detail));
        return reading;
    }
    for (line, span) in spans(body) {
        let entry = if span.text.starts_with('@') {
            let detail = "a list cannot refer to another list".to_owned();
            Err((FaultKind::InvalidListReference, detail))
        } else {
            named_entry(kind, span.text, Some(&name), preferences)
        };
        match entry {
            Ok(entry) => reading.entries.push(entry),
            Err((kind, detail)) => reading.faults.push(Fault {
                line: Some(line),
                column: Some(span.column),
                ..fault(kind, span.text, detail)
            }),
        }
    }
    reading
}

/// The entries of a body with their lines, from 1. Empty ones, which line breaks and final commas make,
/// are none.
fn spans(body: &str) -> impl Iterator<Item = (usize, Span<'_>)> {
    (1_usize..).zip(body.lines()).flat_map(|(line, text)| {
        let text = text.split('#').next().unwrap_or_default();
        let entries = Span::whole(text).split_commas().map(Span::trimmed);
        entries
            .filter(|span| !span.text.is_empty())
            .map(move |span| (line, span))
    })
}

/// Reads the file of a list, for the file provider: `@name` is the file of that name in `directory`.
///
/// # Errors
///
/// When the reference is of another form, leaves the directory, or the file cannot be read. A file past
/// [`LIST_BYTES_MAX`] is read just far enough for [`read`] to refuse it.
pub fn read_file(directory: &Path, reference: &ListReference) -> io::Result<String> {
    let ListReference::Named(name) = reference else {
        let message = "only @name, a file beside the inventory, can be read without a cloud";
        return Err(io::Error::new(io::ErrorKind::Unsupported, message));
    };
    if name.starts_with('/') {
        let message = "a list is a file beside the inventory, not an absolute path";
        return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
    }
    let file = std::fs::File::open(directory.join(name))?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "not a regular file",
        ));
    }
    let mut body = Vec::new();
    let most = u64::try_from(LIST_BYTES_MAX).map_or(u64::MAX, |most| most + 1);
    file.take(most).read_to_end(&mut body)?;
    String::from_utf8(body).map_err(|fault| io::Error::new(io::ErrorKind::InvalidData, fault))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_body(body: &str) -> ListReading {
        let reference = ListReference::Named("team".to_owned());
        read(body, Kind::Tls, &reference, &Preferences::default())
    }

    #[test]
    fn entries_stand_between_commas_and_line_breaks() {
        let reading = read_body(
            "# team 1\napi.example.com, *.example.org\r\n\n  cdn.example.net # cdn\n,,\n",
        );
        assert_eq!(reading.faults, []);
        let texts: Vec<_> = reading
            .entries
            .iter()
            .map(|entry| match entry {
                Entry::Name { name, .. } => name.to_string(),
                Entry::Pattern { pattern, .. } => pattern.to_string(),
                Entry::Address { .. } | Entry::SeeThru { .. } => unreachable!(),
            })
            .collect();
        assert_eq!(
            texts,
            ["api.example.com", "*.example.org", "cdn.example.net"]
        );
        assert!(
            reading
                .entries
                .iter()
                .all(|entry| entry.list() == Some("team"))
        );
    }

    #[test]
    fn a_bad_entry_is_one_fault_with_line_and_column() {
        let reading = read_body("a.example.com\nb.example.com, @other,c..d, e.example.com");
        assert_eq!(reading.entries.len(), 3);
        let places: Vec<_> = reading
            .faults
            .iter()
            .map(|fault| (fault.line, fault.column, fault.kind))
            .collect();
        assert_eq!(
            places,
            [
                (Some(2), Some(16), FaultKind::InvalidListReference),
                (Some(2), Some(23), FaultKind::InvalidName),
            ]
        );
        assert_eq!(reading.faults[1].list.as_deref(), Some("team"));
    }

    #[test]
    fn a_list_past_a_limit_is_refused_whole() {
        let many = "a.example\n".repeat(LIST_ENTRIES_MAX);
        assert_eq!(read_body(&many).entries.len(), LIST_ENTRIES_MAX);
        let more = read_body(&format!("{many}b.example"));
        assert_eq!((more.entries.len(), more.faults.len()), (0, 1));
        assert_eq!(more.faults[0].kind, FaultKind::ListTooLarge);
        let big = read_body(&"#".repeat(LIST_BYTES_MAX + 1));
        assert_eq!(big.faults[0].kind, FaultKind::ListTooLarge);
    }

    #[test]
    fn a_file_beside_the_inventory_never_lies_elsewhere() {
        let fault = |reference| read_file(Path::new("/nonexistent"), &reference).unwrap_err();
        let absolute = fault(ListReference::Named("/etc/hostname".to_owned()));
        assert_eq!(absolute.kind(), io::ErrorKind::InvalidInput);
        let secret = fault(ListReference::Secret("x".to_owned()));
        assert_eq!(secret.kind(), io::ErrorKind::Unsupported);
        let absent = fault(ListReference::Named("x".to_owned()));
        assert_eq!(absent.kind(), io::ErrorKind::NotFound);
    }
}
