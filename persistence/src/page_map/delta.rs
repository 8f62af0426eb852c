//! What a message or a round wrote.

use super::{Page, PageIndex};
use crate::sys::frame::{Frame, NewPage};
use replicore_types::OS_PAGE_BYTES;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

pub(super) static ZERO_PAGE: Page = [0; OS_PAGE_BYTES];

/// A page's number and new content; `None` is a page of zeros.
pub(super) type Write = (PageIndex, Option<Arc<Frame>>);

/// Pages that changed: whole new contents, at most one per index.
///
/// Writers scan memory upwards, so pages mostly arrive in ascending order; the others wait in a tree.
#[derive(Clone, Default)]
pub struct PageDelta {
    ascending: Vec<Write>,
    scattered: BTreeMap<PageIndex, Option<Arc<Frame>>>,
}

impl PageDelta {
    /// Records the new content of a page, copying it. A later call for the same index replaces an earlier one.
    pub fn insert(&mut self, index: PageIndex, page: &Page) {
        let frame = (*page != ZERO_PAGE).then(|| Arc::new(Frame::copy_of(page)));
        self.place(index, frame);
    }

    /// The same for a page that was made to become part of a delta: without a copy.
    pub fn insert_new(&mut self, index: PageIndex, page: NewPage) {
        let frame = (*page != ZERO_PAGE).then(|| Arc::new(page.into_frame()));
        self.place(index, frame);
    }

    /// [`PageDelta::insert`] for several pages.
    fn insert_together(&mut self, pages: &[(PageIndex, &Page)]) {
        let filled: Vec<&Page> = pages
            .iter()
            .map(|(_, page)| *page)
            .filter(|page| **page != ZERO_PAGE)
            .collect();
        let mut frames = Frame::copies_of(&filled).into_iter().map(Arc::new);
        let mut filled = filled.into_iter().peekable();
        for (index, page) in pages {
            let frame = filled
                .next_if(|next| std::ptr::eq(*next, *page))
                .and_then(|_| frames.next());
            self.place(*index, frame);
        }
    }

    fn place(&mut self, index: PageIndex, frame: Option<Arc<Frame>>) {
        match self.ascending.last() {
            Some((last, _)) if index <= *last => match self.ascending.binary_search_by_key(&index, |(at, _)| *at) {
                Ok(position) => self.ascending[position].1 = frame,
                Err(_) => {
                    self.scattered.insert(index, frame);
                }
            },
            _ => self.ascending.push((index, frame)),
        }
    }

    /// Number of pages in the delta.
    pub fn len(&self) -> usize {
        self.ascending.len() + self.scattered.len()
    }

    /// True when nothing changed.
    pub fn is_empty(&self) -> bool {
        self.ascending.is_empty() && self.scattered.is_empty()
    }

    /// The delta's pages in ascending order, as they will read.
    pub fn iter(&self) -> impl Iterator<Item = (PageIndex, &Page)> {
        let mut ascending = self.ascending.iter().map(|(index, frame)| (*index, frame)).peekable();
        let mut scattered = self.scattered.iter().map(|(index, frame)| (*index, frame)).peekable();
        std::iter::from_fn(move || {
            let (index, frame) = match (ascending.peek(), scattered.peek()) {
                (Some((left, _)), Some((right, _))) if right < left => scattered.next()?,
                (Some(_), _) => ascending.next()?,
                (None, _) => scattered.next()?,
            };
            Some((index, frame.as_ref().map_or(&ZERO_PAGE, |frame| frame.page())))
        })
    }

    /// Two ascending lists without a common index.
    pub(super) fn into_runs(self) -> (Vec<Write>, Vec<Write>) {
        (self.ascending, self.scattered.into_iter().collect())
    }
}

/// As [`PageDelta::insert`] of one after another, but in less time from a few pages on: they are copied side by side.
impl<'a> Extend<(PageIndex, &'a Page)> for PageDelta {
    fn extend<T: IntoIterator<Item = (PageIndex, &'a Page)>>(&mut self, pages: T) {
        let mut pages = pages.into_iter();
        if pages.size_hint().1.is_some_and(|count| count < COPIED_TOGETHER_MIN) {
            return pages.for_each(|(index, page)| self.insert(index, page));
        }
        let mut together = Vec::with_capacity(COPIED_TOGETHER);
        loop {
            together.extend(pages.by_ref().take(COPIED_TOGETHER));
            if together.is_empty() {
                return;
            }
            self.insert_together(&together);
            together.clear();
        }
    }
}

/// Pages that are copied side by side: their lists stay in the nearest cache.
const COPIED_TOGETHER: usize = 64;
/// Fewer are not worth a list.
const COPIED_TOGETHER_MIN: usize = 4;

impl fmt::Debug for PageDelta {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PageDelta({} pages)", self.len())
    }
}
