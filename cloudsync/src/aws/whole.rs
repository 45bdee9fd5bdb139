//! Refuses half an answer.
//!
//! The SDK's XML readers take the end of the text for the end of every open element: a list cut
//! in two is to them a shorter list, and a shorter list is here a policy that refuses what it
//! should allow. So an answer must end with the tag that closes its root before anybody reads it.

use aws_sdk_ec2::config::interceptors::AfterDeserializationInterceptorContextRef;
use aws_sdk_ec2::config::{ConfigBag, Intercept, RuntimeComponents};
use aws_sdk_ec2::error::BoxError;

/// Looks at every good answer of the Query protocol.
#[derive(Debug)]
pub(super) struct Whole;

/// The answer stops before its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the answer stops before the tag that closes it")]
struct Half;

impl Intercept for Whole {
    fn name(&self) -> &'static str {
        "Whole"
    }

    fn read_after_deserialization(
        &self,
        context: &AfterDeserializationInterceptorContextRef<'_>,
        _: &RuntimeComponents,
        _: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let response = context.response();
        let body = response.body().bytes().unwrap_or_default();
        if response.status().is_success() && !is_whole(body) {
            return Err(Half.into());
        }
        Ok(())
    }
}

/// Whether a document ends with the tag that closes the element it begins with.
fn is_whole(body: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(body) else {
        return false;
    };
    let text = text.trim();
    let Some(root) = root(text) else { return false };
    text.ends_with(&format!("</{root}>")) || text.ends_with("/>") && text.matches('<').count() <= 2
}

/// The name of the first element, declarations and comments left out.
fn root(text: &str) -> Option<&str> {
    let mut starts = text.split('<').skip(1);
    let start = starts.find(|start| !start.starts_with(['?', '!']))?;
    let end =
        start.find(|character: char| character.is_whitespace() || "/>".contains(character))?;
    start.get(..end).filter(|name| !name.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    const ANSWER: &str =
        "<?xml version=\"1.0\"?>\n<R xmlns=\"http://a/\"><set><item><id>1</id></item></set></R>\n";

    #[test]
    fn no_prefix_of_an_answer_is_whole() {
        assert!(is_whole(ANSWER.as_bytes()));
        for cut in 0..ANSWER.trim_end().len() {
            assert!(!is_whole(&ANSWER.as_bytes()[..cut]), "cut at {cut}");
        }
    }

    #[test]
    fn an_empty_root_is_whole_and_nothing_is_not() {
        assert!(is_whole(b"<?xml version=\"1.0\"?><R/>"));
        assert!(!is_whole(b""));
        assert!(!is_whole(b"\xff"));
    }
}
