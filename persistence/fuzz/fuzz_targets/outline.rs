//! Outlines and chunks from a peer: whatever is accepted has the digest that it was asked for by.
#![no_main]

use libfuzzer_sys::fuzz_target;
use replicore_persistence::{Outline, PageDelta, PageIndex, PageMap};

fuzz_target!(|data: &[u8]| {
    let mut delta = PageDelta::default();
    for index in [0, 3, 255, 256, 70_000] {
        delta.insert(PageIndex(index), &[index as u8 | 1; 4096]);
    }
    let map = PageMap::default().update(delta);
    if let Some(outline) = Outline::decode(data, &map.digest()) {
        assert_eq!(outline, map.outline());
    }
    let outline = map.outline();
    for (number, _) in outline.chunks() {
        if let Some(change) = outline.check_chunk(*number, data) {
            assert_eq!(map.update(change).digest(), map.digest());
        }
    }
});
