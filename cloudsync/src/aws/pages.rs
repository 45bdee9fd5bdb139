//! Listings of EC2, page by page, understood only where they changed.

use std::cell::RefCell;
use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::rc::Rc;

use roxmltree::Node;

use super::call::Caller;
use super::error::{incomplete, on_page};
use super::service::EC2;
use super::xml;
use crate::cloud::CloudError;

/// Objects to ask for at a time: the most the service gives.
const PAGE: &str = "1000";

/// Values in one filter: the most the service takes.
pub(super) const FILTER_VALUES_MAX: usize = 200;

/// Pages after which an answer is taken for one that never ends.
const PAGES_MAX: u32 = 1_000;

/// One listing.
#[derive(Debug, Clone, Copy)]
pub(super) struct Listing {
    /// The action.
    pub(super) action: &'static str,
    /// The element that holds the items of an answer; an answer without it is half an answer.
    pub(super) set: &'static str,
}

/// The pages of the last answer, to be recognised.
#[derive(Debug)]
pub(super) struct Pages<T> {
    hasher: RandomState,
    kept: RefCell<Vec<(u64, Rc<Vec<T>>)>>,
}

impl<T> Default for Pages<T> {
    fn default() -> Self {
        Self {
            hasher: RandomState::new(),
            kept: RefCell::default(),
        }
    }
}

impl<T> Pages<T> {
    /// Reads every page; `item` understands one member, and says what it lacks.
    pub(super) async fn read(
        &self,
        caller: &Caller,
        listing: Listing,
        arguments: &[(String, String)],
        item: impl Fn(Node<'_, '_>) -> Result<T, &'static str>,
    ) -> Result<Vec<Rc<Vec<T>>>, CloudError> {
        let Listing { action, set } = listing;
        let mut pages = Vec::new();
        let mut token: Option<String> = None;
        for page in 1..=PAGES_MAX {
            let mut arguments = arguments.to_vec();
            arguments.push(("MaxResults".to_owned(), PAGE.to_owned()));
            arguments.extend(token.map(|token| ("NextToken".to_owned(), token)));
            let answer = caller.query(EC2, action, &arguments).await;
            let body = answer.map_err(|error| on_page(error, page))?.bytes;
            let mark = self.mark(&body);
            let known = self.known(pages.len(), mark);
            let items = match known {
                Some(items) => items,
                None => {
                    let document = xml::parse(action, page, &body)?;
                    let root = document.root_element();
                    if xml::child(root, set).is_none() {
                        return Err(incomplete(action, page, set));
                    }
                    let items = xml::items(root, set).map(&item);
                    let items = items.collect::<Result<Vec<T>, _>>();
                    Rc::new(items.map_err(|what| incomplete(action, page, what))?)
                }
            };
            pages.push((mark, items));
            token = between(&body, NEXT_TOKEN)
                .and_then(|(_, token, _)| String::from_utf8(token.to_vec()).ok())
                .filter(|token| !token.is_empty());
            if token.is_none() {
                let items = pages.iter().map(|(_, items)| Rc::clone(items)).collect();
                *self.kept.borrow_mut() = pages;
                return Ok(items);
            }
        }
        Err(incomplete(action, PAGES_MAX, "end"))
    }

    /// A page that says what it said the last time, wherever it was then.
    fn known(&self, index: usize, mark: u64) -> Option<Rc<Vec<T>>> {
        let kept = self.kept.borrow();
        let same_place = kept.get(index).filter(|(known, _)| *known == mark);
        let found = same_place.or_else(|| kept.iter().find(|(known, _)| *known == mark));
        found.map(|(_, items)| Rc::clone(items))
    }

    /// Tells pages apart by everything but what differs with each answer. The key is this process's
    /// own, so nobody writes two descriptions that look the same.
    fn mark(&self, body: &[u8]) -> u64 {
        let mut hasher = self.hasher.build_hasher();
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

/// The element of the request's own id, which EC2 puts first.
const REQUEST_ID: (&[u8], &[u8]) = (b"<requestId>", b"</requestId>");

/// The element of the token, which EC2 puts last. Text is escaped, so a tag is a tag.
const NEXT_TOKEN: (&[u8], &[u8]) = (b"<nextToken>", b"</nextToken>");

/// What stands before, in and behind the first element with these tags.
fn between<'b>(body: &'b [u8], tags: (&[u8], &[u8])) -> Option<(&'b [u8], &'b [u8], &'b [u8])> {
    let start = memchr::memmem::find(body, tags.0)?;
    let (before, rest) = body.split_at_checked(start)?;
    let rest = rest.get(tags.0.len()..)?;
    let (inside, rest) = rest.split_at_checked(memchr::memmem::find(rest, tags.1)?)?;
    Some((before, inside, rest.get(tags.1.len()..)?))
}

/// A filter, as the Query protocol writes it; `number` counts filters from 1.
pub(super) fn filter<V: AsRef<str>>(
    number: usize,
    name: &str,
    values: impl IntoIterator<Item = V>,
) -> Vec<(String, String)> {
    let mut arguments = vec![(format!("Filter.{number}.Name"), name.to_owned())];
    let values = values.into_iter().enumerate();
    arguments.extend(values.map(|(index, value)| {
        let index = index.saturating_add(1);
        (
            format!("Filter.{number}.Value.{index}"),
            value.as_ref().to_owned(),
        )
    }));
    arguments
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_are_told_apart_by_their_content_alone() {
        let pages: Pages<()> = Pages::default();
        let page = |id: &str, item: &str, token: &str| {
            let body = format!(
                "<R><requestId>{id}</requestId><set><item>{item}</item></set><nextToken>{token}</nextToken></R>"
            );
            pages.mark(body.as_bytes())
        };
        assert_eq!(page("1", "a", "x"), page("2", "a", "y"));
        assert_ne!(page("1", "a", "x"), page("1", "b", "x"));
        let last = b"<R><requestId>1</requestId><set><item>a</item></set></R>";
        assert_ne!(page("1", "a", "x"), pages.mark(b""));
        assert_eq!(pages.mark(last), pages.mark(last));
    }

    #[test]
    fn a_token_is_found_and_its_absence_too() {
        let found = between(b"<R><nextToken>abc</nextToken></R>", NEXT_TOKEN).unwrap();
        assert_eq!(found.1, b"abc");
        assert!(between(b"<R><nextToken/></R>", NEXT_TOKEN).is_none());
        assert!(between(b"<R><nextToken>abc", NEXT_TOKEN).is_none());
    }
}
