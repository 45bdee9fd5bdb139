//! Refuses half an answer.
//!
//! The SDK's XML readers take the end of the text for the end of every open element: a list cut
//! in two is to them a shorter list, and a shorter list is here a policy that refuses what it
//! should allow. So an answer must end with the tag that closes its root before anybody uses it.

use aws_smithy_runtime_api::box_error::BoxError;
use aws_smithy_runtime_api::client::interceptors::context::AfterDeserializationInterceptorContextRef;
use aws_smithy_runtime_api::client::interceptors::{Intercept, dyn_dispatch_hint};
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;
use aws_smithy_types::config_bag::ConfigBag;

/// Looks at every good answer of the Query protocol.
#[derive(Debug)]
pub(super) struct Whole;

/// The answer stops before its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the answer stops before the tag that closes it")]
struct Half;

#[dyn_dispatch_hint]
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
    let body = body.trim_ascii();
    let Some((root, rest)) = root(body) else {
        return false;
    };
    let closed = body
        .strip_suffix(b">")
        .and_then(|body| body.strip_suffix(root))
        .is_some_and(|body| body.ends_with(b"</"));
    // An element without content is the whole document.
    let is_empty = rest.ends_with(b"/>") && !rest.contains(&b'<');
    closed || is_empty
}

/// The name of the first element, declarations and comments left out, and what follows the name.
fn root(mut body: &[u8]) -> Option<(&[u8], &[u8])> {
    loop {
        let start = memchr::memchr(b'<', body)?;
        body = body.get(start.saturating_add(1)..)?;
        if body.starts_with(b"?") || body.starts_with(b"!") {
            continue;
        }
        let is_end = |byte: &u8| byte.is_ascii_whitespace() || matches!(byte, b'/' | b'>');
        let end = body.iter().position(is_end)?;
        return body
            .split_at_checked(end)
            .filter(|(name, _)| !name.is_empty());
    }
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
        assert!(!is_whole(b"<R><set/>"));
    }
}
