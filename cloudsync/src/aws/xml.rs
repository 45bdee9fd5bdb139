//! Reading answers of the Query protocol.
//!
//! A document must be whole: a list cut in two would be a shorter list, and a shorter list is here
//! a policy that refuses what it should allow.

use roxmltree::{Document, Node};

use super::error::incomplete;
use crate::cloud::CloudError;

/// Reads a whole document.
pub(super) fn parse<'t>(call: &str, page: u32, text: &'t [u8]) -> Result<Document<'t>, CloudError> {
    let document = std::str::from_utf8(text)
        .ok()
        .and_then(|text| Document::parse(text).ok());
    document.ok_or_else(|| incomplete(call, page, "whole document"))
}

/// The first child element of this name.
pub(super) fn child<'a, 'i>(node: Node<'a, 'i>, name: &str) -> Option<Node<'a, 'i>> {
    node.children()
        .find(|child| child.is_element() && child.tag_name().name() == name)
}

/// The text of the first child element of this name; empty when it has none.
pub(super) fn text<'a>(node: Node<'a, '_>, name: &str) -> Option<&'a str> {
    child(node, name).map(|child| child.text().unwrap_or_default().trim())
}

/// The members of the list in the child element of this name; none when there is no such element.
/// EC2 calls a member `item`, Auto Scaling `member`.
pub(super) fn items<'a, 'i>(node: Node<'a, 'i>, name: &str) -> impl Iterator<Item = Node<'a, 'i>> {
    child(node, name)
        .into_iter()
        .flat_map(|list| list.children())
        .filter(|child| child.is_element())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_prefix_of_an_answer_is_read() {
        let answer = "<?xml version=\"1.0\"?>\n<R xmlns=\"http://a/\"><set><item><id>1</id></item></set></R>";
        assert!(parse("X", 1, answer.as_bytes()).is_ok());
        for cut in 0..answer.len() {
            assert!(
                parse("X", 1, &answer.as_bytes()[..cut]).is_err(),
                "cut at {cut}"
            );
        }
        assert!(parse("X", 1, b"\xff").is_err());
    }
}
