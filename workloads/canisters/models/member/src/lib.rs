//! What one user owns: a canister whose data lies in the heap and survives upgrades through stable memory. Interface:
//! `member.did`.

use serde_bytes::ByteBuf;
use sha2::{Digest, Sha256};
use std::cell::RefCell;

#[derive(Default)]
struct Member {
    version: u64,
    notes: Vec<Vec<u8>>,
}

thread_local! {
    static MEMBER: RefCell<Member> = RefCell::default();
}

#[ic_cdk::init]
fn init(version: u64) {
    MEMBER.with_borrow_mut(|member| member.version = version);
}

/// Writes the data: the size of all, then each note after its size.
#[ic_cdk::pre_upgrade]
fn pre_upgrade() {
    const PAGE: u64 = 65_536;
    MEMBER.with_borrow(|member| {
        let mut bytes = vec![0; 8];
        for note in &member.notes {
            bytes.extend((note.len() as u64).to_le_bytes());
            bytes.extend(note);
        }
        let size = bytes.len() as u64;
        bytes[..8].copy_from_slice(&size.to_le_bytes());
        let missing = size.div_ceil(PAGE).saturating_sub(ic_cdk::api::stable_size());
        assert_ne!(ic_cdk::api::stable_grow(missing), u64::MAX, "stable memory for the data");
        ic_cdk::api::stable_write(0, &bytes);
    });
}

#[ic_cdk::post_upgrade]
fn post_upgrade(version: u64) {
    let mut size = [0; 8];
    ic_cdk::api::stable_read(0, &mut size);
    let mut bytes = vec![0; u64::from_le_bytes(size) as usize];
    ic_cdk::api::stable_read(0, &mut bytes);
    let mut rest = &bytes[8..];
    let mut notes = Vec::new();
    while let Some((size, tail)) = rest.split_first_chunk::<8>() {
        let (note, tail) = tail.split_at(u64::from_le_bytes(*size) as usize);
        notes.push(note.to_vec());
        rest = tail;
    }
    MEMBER.set(Member { version, notes });
}

/// Keeps a note and answers how many there are.
#[ic_cdk::update]
fn keep(note: ByteBuf) -> u64 {
    MEMBER.with_borrow_mut(|member| {
        member.notes.push(note.into_vec());
        member.notes.len() as u64
    })
}

/// The version of the module, the number of notes, and the sum of the first eight bytes of their hashes, which does not
/// depend on their order.
#[ic_cdk::query]
fn summary() -> (u64, u64, u64) {
    MEMBER.with_borrow(|member| {
        let hash = |note: &Vec<u8>| u64::from_le_bytes(*Sha256::digest(note).first_chunk().expect("32 bytes"));
        let sum = member.notes.iter().map(hash).fold(0, u64::wrapping_add);
        (member.version, member.notes.len() as u64, sum)
    })
}
