//! A page as it is read.

use super::Page;
use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

/// The content of a page: where it lies, or, of an encrypted checkpoint, decrypted for its readers.
#[derive(Clone)]
pub enum PageRef<'a> {
    /// In a frame or in a checkpoint's file.
    InPlace(&'a Page),
    /// Decrypted; the last reader lets go of it.
    Clear(Arc<Page>),
}

impl Deref for PageRef<'_> {
    type Target = Page;

    fn deref(&self) -> &Page {
        match self {
            Self::InPlace(page) => page,
            Self::Clear(page) => page,
        }
    }
}

impl PartialEq for PageRef<'_> {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl Eq for PageRef<'_> {}

impl fmt::Debug for PageRef<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PageRef({:02x?}..)", &self[..8])
    }
}
