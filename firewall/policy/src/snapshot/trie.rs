//! Patterns by their labels from the right, so that finding those that cover a name costs steps per
//! label and not per pattern.

use std::collections::HashMap;

use crate::pattern::{Pattern, label_matches};
use crate::{LABEL_BYTES_MAX, Name};

/// A trie of pattern labels.
#[derive(Debug)]
pub(super) struct PatternTrie {
    nodes: Vec<Node>,
}

/// What stands to the left of some labels.
#[derive(Debug, Default)]
struct Node {
    /// Labels without a wildcard.
    literal: HashMap<Box<str>, usize>,
    /// Labels with a wildcard.
    wild: Vec<Shape>,
    /// The pattern that ends here.
    end: Option<u32>,
    /// The pattern that ends here in `**.`.
    deep: Option<u32>,
}

/// A label with a wildcard and the node behind it.
type Branch = (Box<str>, usize);

/// Labels whose literal text before the first and behind the last wildcard have certain lengths.
///
/// There are few shapes (`*` is one, `api-*` another), and within one the texts themselves are the
/// key, so `a1-*` to `a99999-*` is one look-up per length of number.
#[derive(Debug)]
struct Shape {
    head: usize,
    tail: usize,
    by_ends: HashMap<Box<[u8]>, Vec<Branch>>,
}

impl Default for PatternTrie {
    fn default() -> Self {
        Self {
            nodes: vec![Node::default()],
        }
    }
}

impl PatternTrie {
    /// Adds a pattern under a number.
    pub(super) fn insert(&mut self, pattern: &Pattern, number: u32) {
        let at = pattern
            .labels()
            .rev()
            .fold(0, |node, label| self.child(node, label));
        if let Some(node) = self.nodes.get_mut(at) {
            *(if pattern.is_deep() {
                &mut node.deep
            } else {
                &mut node.end
            }) = Some(number);
        }
    }

    /// The node behind a label, made if need be.
    fn child(&mut self, node: usize, label: &str) -> usize {
        let next = self.nodes.len();
        let Some(parent) = self.nodes.get_mut(node) else {
            return node;
        };
        let child = match Ends::of(label) {
            None => *parent.literal.entry(label.into()).or_insert(next),
            Some(ends) => parent.wild_child(ends, label, next),
        };
        if child == next {
            self.nodes.push(Node::default());
        }
        child
    }

    /// Calls `visit` with the number of every pattern that covers a name.
    pub(super) fn covering(&self, name: &Name, visit: &mut dyn FnMut(u32)) {
        self.walk(0, Some(name.as_str()), visit);
    }

    /// Walks on from a node with the labels that are left.
    fn walk(&self, node: usize, rest: Option<&str>, visit: &mut dyn FnMut(u32)) {
        let Some(node) = self.nodes.get(node) else {
            return;
        };
        let Some(rest) = rest else {
            node.end.into_iter().for_each(visit);
            return;
        };
        node.deep.into_iter().for_each(&mut *visit);
        let (left, label) = match rest.rsplit_once('.') {
            Some((left, label)) => (Some(left), label),
            None => (None, rest),
        };
        if let Some(child) = node.literal.get(label) {
            self.walk(*child, left, visit);
        }
        for shape in &node.wild {
            for child in shape.covering(label) {
                self.walk(child, left, visit);
            }
        }
    }
}

impl Node {
    /// The child behind a label with a wildcard; `next` if there is none yet.
    fn wild_child(&mut self, ends: Ends<'_>, label: &str, next: usize) -> usize {
        let (head, tail) = (ends.head.len(), ends.tail.len());
        let known = self
            .wild
            .iter()
            .position(|shape| shape.head == head && shape.tail == tail);
        let position = known.unwrap_or_else(|| {
            self.wild.push(Shape {
                head,
                tail,
                by_ends: HashMap::new(),
            });
            self.wild.len() - 1
        });
        let Some(shape) = self.wild.get_mut(position) else {
            return next;
        };
        let labels = shape
            .by_ends
            .entry([ends.head, ends.tail].concat().into())
            .or_default();
        if let Some((_, child)) = labels.iter().find(|(known, _)| **known == *label) {
            return *child;
        }
        labels.push((label.into(), next));
        next
    }
}

impl Shape {
    /// The children behind those labels that cover `label`.
    fn covering(&self, label: &str) -> impl Iterator<Item = usize> {
        let bytes = label.as_bytes();
        let mut key = [0_u8; LABEL_BYTES_MAX];
        let labels = self
            .key(bytes, &mut key)
            .and_then(|key| self.by_ends.get(key));
        let labels = labels.map_or(&[][..], Vec::as_slice);
        labels
            .iter()
            .filter(move |(glob, _)| label_matches(glob, label))
            .map(|(_, child)| *child)
    }

    /// The literal ends of a label of this shape; none if the label is too short for it.
    fn key<'a>(&self, label: &[u8], room: &'a mut [u8; LABEL_BYTES_MAX]) -> Option<&'a [u8]> {
        let behind = label.len().checked_sub(self.tail)?;
        if behind < self.head {
            return None;
        }
        let key = room.get_mut(..self.head + self.tail)?;
        let (head, tail) = key.split_at_mut_checked(self.head)?;
        head.copy_from_slice(label.get(..self.head)?);
        tail.copy_from_slice(label.get(behind..)?);
        Some(key)
    }
}

/// The literal text before the first wildcard of a label and behind the last.
struct Ends<'a> {
    head: &'a [u8],
    tail: &'a [u8],
}

impl<'a> Ends<'a> {
    /// The ends of a label, if it has a wildcard.
    fn of(label: &'a str) -> Option<Self> {
        let (head, _) = label.split_once(['*', '?'])?;
        let (_, tail) = label.rsplit_once(['*', '?'])?;
        Some(Self {
            head: head.as_bytes(),
            tail: tail.as_bytes(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn the_trie_finds_exactly_the_patterns_that_match(
            patterns in prop::collection::btree_set(
                "(\\*\\*\\.)?[ab*?]{1,4}(\\.[ab*?]{1,3}){0,3}", 1..20),
            name in "[ab]{1,4}(\\.[ab]{1,3}){0,4}",
        ) {
            let patterns: Vec<_> =
                patterns.iter().filter_map(|text| Pattern::parse(text).ok()).collect();
            let mut trie = PatternTrie::default();
            for (pattern, number) in patterns.iter().zip(0..) {
                trie.insert(pattern, number);
            }
            let name = Name::parse(name.as_bytes()).unwrap();
            let mut found = Vec::new();
            trie.covering(&name, &mut |number| found.push(number));
            found.sort_unstable();
            let expected: Vec<u32> =
                patterns.iter().zip(0..).filter(|(p, _)| p.matches(&name)).map(|(_, n)| n).collect();
            prop_assert_eq!(found, expected);
        }
    }
}
