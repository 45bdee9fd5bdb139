//! "Did you mean": the known word nearest to a mistyped one.

/// The candidate fewest edits away from `word`, if that is at most a third of its length.
pub fn closest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let limit = word.chars().count().div_ceil(3);
    candidates
        .into_iter()
        .map(|candidate| (edits(word, candidate), candidate))
        .filter(|(distance, _)| *distance <= limit)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// Insertions, deletions and replacements that turn `from` into `to` (Levenshtein).
fn edits(from: &str, to: &str) -> usize {
    let to: Vec<char> = to.chars().collect();
    let mut previous: Vec<usize> = (0..=to.len()).collect();
    for (row, letter) in from.chars().enumerate() {
        let mut diagonal = row;
        let mut left = row.saturating_add(1);
        let mut current = vec![left];
        for (&other, &above) in to.iter().zip(previous.iter().skip(1)) {
            let replaced = diagonal.saturating_add(usize::from(letter != other));
            left = replaced
                .min(left.saturating_add(1))
                .min(above.saturating_add(1));
            diagonal = above;
            current.push(left);
        }
        previous = current;
    }
    previous.last().copied().unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nearest_word_is_found_and_a_stranger_is_not() {
        let known = ["address", "instance", "groups"];
        assert_eq!(closest("adress", known), Some("address"));
        assert_eq!(closest("group", known), Some("groups"));
        assert_eq!(closest("colour", known), None);
    }

    #[test]
    fn distance_counts_each_edit_once() {
        assert_eq!(edits("kitten", "sitting"), 3);
        assert_eq!(edits("", "abc"), 3);
        assert_eq!(edits("abc", "abc"), 0);
    }
}
