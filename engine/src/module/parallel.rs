//! Work on many functions at the same time.

use rayon::prelude::*;

/// Functions that a thread takes at once: one alone is too little work to hand over.
const TOGETHER: usize = 16;

/// `work` on every item, on the threads of the pool that this is called in or of the process, with something that `scratch`
/// makes for a thread now and then. The results are in the order of the items, whatever ran where.
pub(super) fn map_with<T: Send, S, R: Send>(
    items: Vec<T>,
    scratch: impl Fn() -> S + Sync + Send,
    work: impl Fn(&mut S, T) -> R + Sync + Send,
) -> Vec<R> {
    let items = items.into_par_iter().with_min_len(TOGETHER);
    items.map_init(scratch, work).collect()
}

/// The same without scratch.
pub(super) fn map<T: Send, R: Send>(items: Vec<T>, work: impl Fn(T) -> R + Sync + Send) -> Vec<R> {
    map_with(items, || (), |(), item| work(item))
}
