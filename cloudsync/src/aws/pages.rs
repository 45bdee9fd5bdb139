//! Listings of EC2, page by page, decoded only where they changed.

use std::cell::RefCell;
use std::rc::Rc;

use aws_sdk_ec2::types::Filter;

use super::call::Caller;
use super::error::{incomplete, on_page};
use super::reader::{Decoder, Marker, Reader};
use crate::cloud::CloudError;

/// Objects to ask for at a time: the most the service gives.
pub(super) const PAGE: i32 = 1_000;

/// Values in one filter: the most the service takes.
pub(super) const FILTER_VALUES_MAX: usize = 200;

/// Pages after which an answer is taken for one that never ends.
const PAGES_MAX: u32 = 1_000;

/// One listing.
pub(super) trait Listing {
    /// What is kept of each member.
    type Item;
    /// The action.
    const ACTION: &'static str;
    /// The element that holds the members of an answer; an answer without it is half an answer.
    const SET: &'static str;

    /// The operation's decoder.
    fn decoder() -> Decoder;

    /// Asks for one page.
    async fn page(caller: &Caller, ask: Ask<'_>) -> Result<Page<Self::Item>, CloudError>;
}

/// What a page is asked for with.
#[derive(Debug, Clone)]
pub(super) struct Ask<'a> {
    filters: &'a [Filter],
    /// Where the page before ended.
    pub(super) token: Option<String>,
    reader: &'a Reader,
}

impl Ask<'_> {
    /// The filters; none for everything.
    pub(super) fn filters(&self) -> Option<Vec<Filter>> {
        (!self.filters.is_empty()).then(|| self.filters.to_vec())
    }

    /// What reads the answer.
    pub(super) fn reader(&self) -> Reader {
        self.reader.clone()
    }
}

/// One page.
#[derive(Debug)]
pub(super) struct Page<T> {
    /// Its members, or what one of them lacks; `None` when there is no list of them.
    pub(super) items: Option<Result<Vec<T>, &'static str>>,
    /// Where the next one begins.
    pub(super) token: Option<String>,
}

/// The pages of the last answer, to be recognised.
#[derive(Debug)]
pub(super) struct Pages<T> {
    marker: Marker,
    kept: RefCell<Vec<(u64, Rc<Vec<T>>)>>,
}

impl<T> Default for Pages<T> {
    fn default() -> Self {
        Self {
            marker: Marker::default(),
            kept: RefCell::default(),
        }
    }
}

impl<T> Pages<T> {
    /// Reads every page.
    pub(super) async fn read<L: Listing<Item = T>>(
        &self,
        caller: &Caller,
        filters: &[Filter],
    ) -> Result<Vec<Rc<Vec<T>>>, CloudError> {
        let known = self.kept.borrow().iter().map(|(mark, _)| *mark).collect();
        let reader = Reader::new(L::decoder(), self.marker.clone(), known);
        let mut pages = Vec::new();
        let mut token: Option<String> = None;
        for page in 1..=PAGES_MAX {
            let ask = Ask {
                filters,
                token,
                reader: &reader,
            };
            let answer = L::page(caller, ask).await;
            let answer = answer.map_err(|error| on_page(error, page))?;
            let seen = reader.seen();
            let seen = seen.ok_or_else(|| incomplete(L::ACTION, page, "body"))?;
            let known = self.known(pages.len(), seen.mark).filter(|_| seen.is_known);
            let items = match (known, answer.items) {
                (Some(items), _) => items,
                (None, None) => return Err(incomplete(L::ACTION, page, L::SET)),
                (None, Some(items)) => {
                    Rc::new(items.map_err(|what| incomplete(L::ACTION, page, what))?)
                }
            };
            pages.push((seen.mark, items));
            token = answer.token.filter(|token| !token.is_empty());
            if token.is_none() {
                let items = pages.iter().map(|(_, items)| Rc::clone(items)).collect();
                *self.kept.borrow_mut() = pages;
                return Ok(items);
            }
        }
        Err(incomplete(L::ACTION, PAGES_MAX, "end"))
    }

    /// A page that says what it said the last time, wherever it was then.
    fn known(&self, index: usize, mark: u64) -> Option<Rc<Vec<T>>> {
        let kept = self.kept.borrow();
        let same_place = kept.get(index).filter(|(known, _)| *known == mark);
        let found = same_place.or_else(|| kept.iter().find(|(known, _)| *known == mark));
        found.map(|(_, items)| Rc::clone(items))
    }
}

/// Whether these are the very same objects, as the pages of an answer are that did not change.
pub(super) fn are_same<T>(these: &[Rc<T>], those: &[Rc<T>]) -> bool {
    these.len() == those.len()
        && these
            .iter()
            .zip(those)
            .all(|(this, that)| Rc::ptr_eq(this, that))
}

/// A filter.
pub(super) fn filter<V: Into<String>>(name: &str, values: impl IntoIterator<Item = V>) -> Filter {
    let values = values.into_iter().map(Into::into).collect();
    Filter::builder()
        .name(name)
        .set_values(Some(values))
        .build()
}
