//! What a follower believes, and what arrives in pieces or not at all.

use super::feed::{Entry, Feed, Next};
use super::wire::{Ask, is_genuine, receive_answer, receive_ask, send, sign_checkpoint};
use crate::certification::RootKey;
use replicore_persistence::sync::{SyncItem, SyncManifest};
use replicore_scheduler::state::{ItemKey, item_digest, state_hash_of_digests};
use replicore_types::CanisterId;
use std::io::{self, Read};
use std::time::Duration;

fn manifest() -> SyncManifest {
    let items: Vec<SyncItem> = (0..3)
        .map(|number| SyncItem {
            key: CanisterId::from_index(number).as_slice().to_vec(),
            metadata: [number as u8; 32],
            blobs: vec![[9; 32]],
            memories: vec![[4; 32], [number as u8; 32]],
        })
        .collect();
    let digests = items.iter().enumerate().map(|(number, item)| {
        let id = CanisterId::from_index(number as u64);
        (ItemKey::Canister(id), item_digest(&item.metadata, &item.memories))
    });
    SyncManifest {
        height: 7,
        state_hash: state_hash_of_digests(&[1; 32], digests.collect::<Vec<_>>()),
        system: [1; 32],
        items,
    }
}

#[test]
fn a_manifest_is_believed_only_as_the_subnet_signed_it() {
    let (key, other) = (
        RootKey::from_seed(&[1; 32]).unwrap(),
        RootKey::from_seed(&[2; 32]).unwrap(),
    );
    let manifest = manifest();
    let signature = sign_checkpoint(&key, &manifest);
    assert!(is_genuine(&manifest, &signature, key.public_key_der()));
    assert!(!is_genuine(&manifest, &signature, other.public_key_der()));
    assert!(!is_genuine(&manifest, &signature[..47], key.public_key_der()));
    assert!(!is_genuine(
        &manifest,
        &key.sign_root(&manifest.state_hash),
        key.public_key_der()
    ));
    let changes: [fn(&mut SyncManifest); 6] = [
        |manifest| manifest.height += 1,
        |manifest| manifest.state_hash[0] ^= 1,
        |manifest| manifest.system[0] ^= 1,
        |manifest| manifest.items[1].metadata[3] ^= 1,
        |manifest| manifest.items[2].memories[1][0] ^= 1,
        |manifest| drop(manifest.items.pop()),
    ];
    for change in changes {
        let mut changed = manifest.clone();
        change(&mut changed);
        assert!(!is_genuine(&changed, &signature, key.public_key_der()));
    }
}

#[test]
fn messages_survive_the_wire_and_broken_ones_are_errors() {
    let mut bytes = Vec::new();
    send(&mut bytes, &Ask::Follow(300)).unwrap();
    assert!(matches!(receive_ask(&mut &bytes[..]).unwrap(), Ask::Follow(300)));
    for len in 0..bytes.len() {
        assert!(receive_ask(&mut &bytes[..len]).is_err(), "{len} bytes");
    }
    let too_long = [0xff; 8];
    assert!(receive_answer(&mut &too_long[..]).is_err());
    let announced = [&(1_u32 << 29).to_le_bytes()[..], b"short"].concat();
    assert!(receive_answer(&mut &announced[..]).is_err());
}

#[test]
fn questions_of_strangers_are_short() {
    let mut endless = Counting(io::repeat(0xff).take(u64::MAX), 0);
    let announced = (1_u32 << 21).to_le_bytes();
    assert!(receive_ask(&mut (&announced[..]).chain(&mut endless)).is_err());
    assert_eq!(endless.1, 0, "nothing is read of what is too long");
}

/// Counts the bytes that are read.
struct Counting<R>(R, usize);

impl<R: Read> Read for Counting<R> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let read = self.0.read(bytes)?;
        self.1 += read;
        Ok(read)
    }
}

#[test]
fn the_feed_keeps_what_is_recent_and_says_what_is_not() {
    let entry = |height, len| Entry {
        height,
        record: vec![0; len],
        root: [0; 32],
        signature: [0; 48],
    };
    let feed = Feed::new(5);
    assert_eq!(feed.first_height(), 5);
    assert!(matches!(feed.next(5, Duration::ZERO), Next::Nothing));
    assert!(matches!(feed.next(4, Duration::ZERO), Next::TooOld));
    for height in 5..9 {
        feed.push(entry(height, 10));
    }
    let Next::Entries(entries) = feed.next(6, Duration::ZERO) else {
        panic!("there are entries");
    };
    assert_eq!(entries.iter().map(|entry| entry.height).collect::<Vec<_>>(), [6, 7, 8]);
    assert!(matches!(feed.next(9, Duration::ZERO), Next::Nothing));
    assert!(
        matches!(feed.next(10, Duration::ZERO), Next::TooOld),
        "a follower that is ahead has another history"
    );
    feed.push(entry(9, 80 << 20));
    assert_eq!(feed.first_height(), 9);
    assert!(matches!(feed.next(6, Duration::ZERO), Next::TooOld));
    feed.close();
    assert!(matches!(feed.next(10, Duration::from_secs(60)), Next::Closed));
}
