//! "Did you mean": the known key nearest to a mistyped one.

/// Rewords an error of serde's about an unknown field; any other is returned as it is.
pub(super) fn explain(message: &str) -> String {
    // serde writes: unknown field `vpc`, expected one of `vpcs`, `region`
    let mut quoted = message.split('`').skip(1).step_by(2);
    let Some(unknown) = quoted
        .next()
        .filter(|_| message.starts_with("unknown field"))
    else {
        return message.to_owned();
    };
    match quoted
        .map(|key| (edits(unknown, key), key))
        .filter(|(distance, _)| *distance <= unknown.len().div_ceil(3))
        .min()
    {
        Some((_, key)) => format!("unknown key {unknown:?}; did you mean {key:?}?"),
        None => format!("unknown key {unknown:?}"),
    }
}

/// Insertions, deletions and replacements that turn `from` into `to` (Levenshtein).
fn edits(from: &str, to: &str) -> usize {
    let to: Vec<char> = to.chars().collect();
    let mut above: Vec<usize> = (0..=to.len()).collect();
    for (row, letter) in from.chars().enumerate() {
        let mut left = row.saturating_add(1);
        let mut current = vec![left];
        for (&other, pair) in to.iter().zip(above.windows(2)) {
            let &[diagonal, up] = pair else { continue };
            let replaced = diagonal.saturating_add(usize::from(letter != other));
            left = replaced
                .min(left.saturating_add(1))
                .min(up.saturating_add(1));
            current.push(left);
        }
        above = current;
    }
    above.last().copied().unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_key_is_offered_and_a_stranger_is_not() {
        let ask = |key: &str| {
            explain(&format!(
                "unknown field `{key}`, expected one of `vpcs`, `region`"
            ))
        };
        assert_eq!(
            ask("regoin"),
            "unknown key \"regoin\"; did you mean \"region\"?"
        );
        assert_eq!(ask("tenancy"), "unknown key \"tenancy\"");
        assert_eq!(explain("invalid type"), "invalid type");
    }

    #[test]
    fn distance_counts_each_edit_once() {
        assert_eq!(edits("kitten", "sitting"), 3);
        assert_eq!(edits("", "abc"), 3);
        assert_eq!(edits("abc", "abc"), 0);
    }
}
