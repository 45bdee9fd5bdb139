//! Leaves pages undecoded that say what they said before.
//!
//! Most cycles of a deployment change nothing, and the SDK would decode megabytes of XML into objects to find that out. Its decoder is a
//! component that an operation's configuration names, so this one takes its place for a call: it marks the body, hands a page that is
//! new to the decoder it replaces, and of a known one reads the token alone.

use std::collections::HashSet;
use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::sync::{Arc, Mutex, PoisonError};

use aws_smithy_runtime_api::box_error::BoxError;
use aws_smithy_runtime_api::client::interceptors::context::{
    BeforeTransmitInterceptorContextRef, Error, Output,
};
use aws_smithy_runtime_api::client::interceptors::{Intercept, dyn_dispatch_hint};
use aws_smithy_runtime_api::client::orchestrator::{HttpResponse, OrchestratorError};
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;
use aws_smithy_runtime_api::client::runtime_plugin::RuntimePlugin;
use aws_smithy_runtime_api::client::ser_de::{DeserializeResponse, SharedResponseDeserializer};
use aws_smithy_types::config_bag::{ConfigBag, FrozenLayer};

/// How one operation's answers are decoded.
#[derive(Debug, Clone)]
pub(super) struct Decoder {
    operation: Option<FrozenLayer>,
    /// What the SDK makes of an answer that has a token and nothing else.
    unread: fn(Option<String>) -> Output,
}

impl Decoder {
    /// As the operation itself decodes them.
    pub(super) fn of(operation: &impl RuntimePlugin, unread: fn(Option<String>) -> Output) -> Self {
        let operation = operation.config();
        Self { operation, unread }
    }
}

/// Tells bodies apart by everything but what differs with each answer. The key is this process's
/// own, so nobody writes two descriptions that look the same.
#[derive(Debug, Clone, Default)]
pub(super) struct Marker(RandomState);

impl Marker {
    fn mark(&self, body: &[u8]) -> u64 {
        let mut hasher = self.0.build_hasher();
        let mut rest = body;
        for tags in [REQUEST_ID, NEXT_TOKEN] {
            if let Some((before, _, behind)) = between(rest, tags) {
                hasher.write(before);
                rest = behind;
            }
        }
        hasher.write(rest);
        hasher.finish()
    }
}

/// Reads the answers to one call.
#[derive(Debug, Clone)]
pub(super) struct Reader(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    decoder: Decoder,
    marker: Marker,
    known: HashSet<u64>,
    last: Mutex<Option<u64>>,
}

/// A page that was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Seen {
    /// The mark of its body.
    pub(super) mark: u64,
    /// Whether it was left undecoded.
    pub(super) is_known: bool,
}

impl Reader {
    /// Leaves bodies with these marks undecoded.
    pub(super) fn new(decoder: Decoder, marker: Marker, known: HashSet<u64>) -> Self {
        Self(Arc::new(Inner {
            decoder,
            marker,
            known,
            last: Mutex::default(),
        }))
    }

    /// The page that the call just made brought.
    pub(super) fn seen(&self) -> Option<Seen> {
        let mark = *self.0.last.lock().unwrap_or_else(PoisonError::into_inner);
        mark.map(|mark| Seen {
            mark,
            is_known: self.0.known.contains(&mark),
        })
    }
}

#[dyn_dispatch_hint]
impl Intercept for Reader {
    fn name(&self) -> &'static str {
        "Reader"
    }

    fn read_before_attempt(
        &self,
        _: &BeforeTransmitInterceptorContextRef<'_>,
        _: &RuntimeComponents,
        cfg: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        cfg.interceptor_state()
            .store_put(SharedResponseDeserializer::new(self.clone()));
        Ok(())
    }
}

impl DeserializeResponse for Reader {
    fn deserialize_nonstreaming_with_config(
        &self,
        response: &HttpResponse,
        cfg: &ConfigBag,
    ) -> Result<Output, OrchestratorError<Error>> {
        let Inner {
            decoder,
            marker,
            known,
            last,
        } = &*self.0;
        if response.status().is_success() {
            let body = response.body().bytes().unwrap_or_default();
            let mark = marker.mark(body);
            *last.lock().unwrap_or_else(PoisonError::into_inner) = Some(mark);
            if known.contains(&mark) {
                return Ok((decoder.unread)(token(body)));
            }
        }
        let operation = decoder.operation.as_ref();
        operation
            .and_then(|layer| layer.load::<SharedResponseDeserializer>())
            .ok_or_else(|| OrchestratorError::other("the operation names no decoder"))?
            .deserialize_nonstreaming_with_config(response, cfg)
    }
}

/// The element of the request's own id, which EC2 puts first.
const REQUEST_ID: (&[u8], &[u8]) = (b"<requestId>", b"</requestId>");

/// The element of the token, which EC2 puts last. Text is escaped, so a tag is a tag.
const NEXT_TOKEN: (&[u8], &[u8]) = (b"<nextToken>", b"</nextToken>");

/// The token of a page. EC2's tokens are base64 (they need no escape).
fn token(body: &[u8]) -> Option<String> {
    let (_, token, _) = between(body, NEXT_TOKEN)?;
    String::from_utf8(token.to_vec()).ok()
}

/// What stands before, in and behind the first element with these tags.
fn between<'b>(body: &'b [u8], tags: (&[u8], &[u8])) -> Option<(&'b [u8], &'b [u8], &'b [u8])> {
    let start = memchr::memmem::find(body, tags.0)?;
    let (before, rest) = body.split_at_checked(start)?;
    let rest = rest.get(tags.0.len()..)?;
    let (inside, rest) = rest.split_at_checked(memchr::memmem::find(rest, tags.1)?)?;
    Some((before, inside, rest.get(tags.1.len()..)?))
}

#[cfg(test)]
mod tests {
    use aws_sdk_ec2::operation::describe_network_interfaces::{
        DescribeNetworkInterfaces, DescribeNetworkInterfacesOutput,
    };
    use aws_smithy_types::body::SdkBody;

    use super::*;

    fn page(id: &str, item: &str, token: &str) -> String {
        format!(
            "<DescribeNetworkInterfacesResponse><requestId>{id}</requestId><networkInterfaceSet><item>\
             <networkInterfaceId>{item}</networkInterfaceId></item></networkInterfaceSet>\
             <nextToken>{token}</nextToken></DescribeNetworkInterfacesResponse>"
        )
    }

    fn read(reader: &Reader, body: &str) -> DescribeNetworkInterfacesOutput {
        let response = HttpResponse::new(200.try_into().unwrap(), SdkBody::from(body));
        let output = reader.deserialize_nonstreaming_with_config(&response, &ConfigBag::base());
        output.unwrap().downcast().unwrap()
    }

    #[test]
    fn a_known_page_is_left_undecoded_and_its_token_is_followed() {
        let decoder = Decoder::of(&DescribeNetworkInterfaces::new(), |token| {
            let output = DescribeNetworkInterfacesOutput::builder();
            Output::erase(output.set_next_token(token).build())
        });
        let marker = Marker::default();
        let reader = Reader::new(decoder.clone(), marker.clone(), HashSet::new());
        let output = read(&reader, &page("1", "eni-1", "x"));
        assert_eq!(output.network_interfaces().len(), 1);
        let seen = reader.seen().unwrap();
        assert!(!seen.is_known);
        let again = Reader::new(decoder, marker, HashSet::from([seen.mark]));
        let output = read(&again, &page("2", "eni-1", "y"));
        assert_eq!(output.network_interfaces, None);
        assert_eq!(output.next_token(), Some("y"));
        assert!(again.seen().unwrap().is_known);
        let output = read(&again, &page("3", "eni-2", "y"));
        assert_eq!(output.network_interfaces().len(), 1);
        assert!(!again.seen().unwrap().is_known);
    }

    #[test]
    fn pages_are_told_apart_by_their_content_alone() {
        let marker = Marker::default();
        let mark =
            |id: &str, item: &str, token: &str| marker.mark(page(id, item, token).as_bytes());
        assert_eq!(mark("1", "a", "x"), mark("2", "a", "y"));
        assert_ne!(mark("1", "a", "x"), mark("1", "b", "x"));
        // Half a page is another page.
        let whole = page("1", "a", "x");
        for cut in 0..whole.len() {
            assert_ne!(
                marker.mark(&whole.as_bytes()[..cut]),
                mark("1", "a", "x"),
                "cut at {cut}"
            );
        }
    }

    #[test]
    fn a_token_is_found_and_its_absence_too() {
        assert_eq!(
            token(b"<R><nextToken>abc</nextToken></R>").as_deref(),
            Some("abc")
        );
        assert_eq!(token(b"<R><nextToken/></R>"), None);
        assert_eq!(token(b"<R><nextToken>abc"), None);
    }
}
