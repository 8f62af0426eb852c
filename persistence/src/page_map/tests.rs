//! The page map against a plain map from index to bytes.

use super::{Page, PageDelta, PageIndex, PageMap};
use crate::NewPage;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use replicore_types::OS_PAGE_BYTES;
use std::collections::BTreeMap;

type Model = BTreeMap<u64, Vec<u8>>;

fn page_of(byte: u8) -> Page {
    let mut page = [0; OS_PAGE_BYTES];
    page[17] = byte;
    page[4095] = byte;
    page
}

/// Mostly low pages, some far ones, some beyond any root so far.
fn any_index(rng: &mut ChaCha8Rng) -> u64 {
    match rng.random_range(0..10) {
        0 => rng.random(),
        1..=3 => rng.random_range(0..1 << 20),
        _ => rng.random_range(0..300),
    }
}

fn write_some(map: &mut PageMap, model: &mut Model, rng: &mut ChaCha8Rng) {
    let mut delta = PageDelta::default();
    let (mut writes, mut written) = (Vec::new(), BTreeMap::new());
    for _ in 0..rng.random_range(0..150) {
        // Known pages now and then, so that pages are overwritten and removed.
        let known = model.keys().nth(rng.random_range(0..model.len().max(1))).copied();
        let index = if rng.random_bool(0.3) {
            known.unwrap_or(3)
        } else {
            any_index(rng)
        };
        let byte = if rng.random_bool(0.3) { 0 } else { rng.random() };
        writes.push((PageIndex(index), page_of(byte)));
        written.insert(index, byte);
    }
    // Some one by one, the others together.
    let (alone, together) = writes.split_at(rng.random_range(0..writes.len() + 1));
    alone.iter().for_each(|(index, page)| delta.insert(*index, page));
    delta.extend(together.iter().map(|(index, page)| (*index, page)));
    assert_eq!(delta.len(), written.len());
    assert!(
        delta
            .iter()
            .map(|(index, page)| (index.0, page[17]))
            .eq(written.clone())
    );
    for (index, byte) in written {
        model.remove(&index);
        if byte != 0 {
            model.insert(index, page_of(byte).to_vec());
        }
    }
    if rng.random() {
        map.apply(delta)
    } else {
        *map = map.update(delta)
    }
}

fn from_model(model: &Model) -> PageMap {
    let mut delta = PageDelta::default();
    for (index, page) in model.iter().rev() {
        delta.insert(PageIndex(*index), page.as_slice().try_into().expect("a page"));
    }
    PageMap::default().update(delta)
}

fn assert_same(map: &PageMap, model: &Model) {
    assert_eq!(map.len(), model.len() as u64);
    assert_eq!(map.frame_count(), model.len() as u64);
    assert_eq!(map.is_empty(), model.is_empty());
    assert!(
        map.iter()
            .map(|(index, page)| (index.0, page.to_vec()))
            .eq(model.clone())
    );
}

#[test]
fn behaves_like_a_plain_map_through_any_history() {
    for seed in 0..30 {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let (mut map, mut model) = (PageMap::default(), Model::new());
        let mut versions = Vec::new();
        for _ in 0..25 {
            write_some(&mut map, &mut model, &mut rng);
            assert_same(&map, &model);
            for _ in 0..20 {
                let index = any_index(&mut rng);
                assert_eq!(
                    map.get(PageIndex(index)).map(|page| page.to_vec()),
                    model.get(&index).cloned()
                );
            }
            assert_eq!(
                map.digest(),
                from_model(&model).digest(),
                "the digest is a function of the content"
            );
            if rng.random() {
                versions.push((map.clone(), model.clone()));
            }
        }
        for (version, version_model) in &versions {
            assert_same(version, version_model);
            let expected: Vec<_> = model
                .keys()
                .chain(version_model.keys())
                .collect::<std::collections::BTreeSet<_>>()
                .into_iter()
                .filter(|index| model.get(index) != version_model.get(index))
                .map(|index| (*index, model.get(index).cloned()))
                .collect();
            let changes = map.changes_since(version).into_iter();
            assert!(
                changes
                    .map(|(index, page)| (index.0, page.map(|page| page.to_vec())))
                    .eq(expected)
            );
        }
    }
}

#[test]
fn digests_differ_by_content_and_place() {
    let map_with = |pages: &[(u64, u8)]| {
        let mut delta = PageDelta::default();
        for (index, byte) in pages {
            delta.insert(PageIndex(*index), &page_of(*byte));
        }
        PageMap::default().update(delta).digest()
    };
    let contents: [&[(u64, u8)]; 9] = [
        &[],
        &[(0, 1)],
        &[(0, 2)],
        &[(1, 1)],
        &[(15, 1)],
        &[(16, 1)],
        &[(256, 1)],
        &[(0, 1), (1, 1)],
        &[(u64::MAX, 1)],
    ];
    let digests: std::collections::BTreeSet<_> = contents.iter().map(|content| map_with(content)).collect();
    assert_eq!(digests.len(), contents.len());
}

#[test]
fn an_unshared_version_is_changed_in_place_and_a_shared_one_is_not() {
    let mut delta = PageDelta::default();
    for index in 0..1000 {
        delta.insert(PageIndex(index), &page_of(7));
    }
    let mut map = PageMap::default().update(delta);
    let untouched = map.get(PageIndex(900)).map(|page| page.as_ptr());
    let snapshot = map.clone();
    assert!(map.is_same_version(&snapshot));
    let mut delta = PageDelta::default();
    delta.insert(PageIndex(5), &page_of(9));
    map.apply(delta);
    assert_eq!(snapshot.get(PageIndex(5)).map(|page| page[17]), Some(7));
    assert_eq!(map.get(PageIndex(5)).map(|page| page[17]), Some(9));
    assert_eq!(
        map.get(PageIndex(900)).map(|page| page.as_ptr()),
        untouched,
        "untouched pages are shared"
    );
}

#[test]
fn a_new_page_becomes_part_of_a_delta_as_it_was_written() {
    let (mut copied, mut written) = (PageDelta::default(), PageDelta::default());
    for index in [7, 3, 900, 3] {
        let old = [index as u8; OS_PAGE_BYTES];
        let mut new = NewPage::copy_of(&old);
        assert_eq!(*new, old);
        new[5] = 99;
        copied.insert(PageIndex(index), &new);
        written.insert_new(PageIndex(index), new);
    }
    written.insert_new(PageIndex(8), NewPage::zeros());
    copied.insert(PageIndex(8), &[0; OS_PAGE_BYTES]);
    assert!(written.iter().eq(copied.iter()));
    let map = PageMap::default().update(written);
    assert_eq!(map.digest(), PageMap::default().update(copied).digest());
    assert_eq!((map.len(), map.get(PageIndex(900)).map(|page| page[5])), (3, Some(99)));
}
