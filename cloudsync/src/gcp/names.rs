//! Names of Google's resources, which come as whole URLs, as paths and as plain words.

/// The project and the last word of a network: `projects/P/global/networks/N`, whatever is in
/// front of it.
pub(super) fn network(url: &str) -> Option<(&str, &str)> {
    let mut parts = path(url)?.split('/');
    let found = (parts.next()?, parts.next_back()?);
    (!found.0.is_empty() && !found.1.is_empty()).then_some(found)
}

/// What stands behind `projects/`.
fn path(url: &str) -> Option<&str> {
    if let Some(rest) = url.strip_prefix("projects/") {
        return Some(rest);
    }
    url.split_once("/projects/").map(|(_, rest)| rest)
}

/// The last word of a URL or path: of `zones/europe-west1-b`, `europe-west1-b`.
pub(super) fn last(url: &str) -> &str {
    url.rsplit('/').next().unwrap_or(url)
}

/// A name of a network, told apart from those of other projects.
pub(super) fn qualified(url: &str) -> Option<String> {
    network(url).map(|(project, name)| format!("{project}/{name}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_is_the_same_however_it_is_written() {
        let forms = [
            "https://www.googleapis.com/compute/v1/projects/p-1/global/networks/main",
            "https://compute.googleapis.com/compute/v1/projects/p-1/global/networks/main",
            "projects/p-1/global/networks/main",
            "projects/p-1/networks/main",
        ];
        for form in forms {
            assert_eq!(network(form), Some(("p-1", "main")), "{form}");
        }
        assert_eq!(network("main"), None);
        assert_eq!(network("projects/p-1/"), None);
        assert_eq!(last("zones/europe-west1-b"), "europe-west1-b");
    }
}
