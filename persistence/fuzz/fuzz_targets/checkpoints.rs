//! A golden directory of checkpoints, in clear or encrypted, with bytes changed anywhere, or cut off: an error, or
//! checkpoints that can be verified or are found damaged. Never a panic.
#![no_main]

use libfuzzer_sys::fuzz_target;
use replicore_persistence::disk::SimDisk;
use replicore_persistence::{CheckpointOptions, CheckpointStore};
use replicore_persistence_fuzz::changed_directory;
use std::sync::Arc;

fuzz_target!(|data: &[u8]| {
    let Some((_files, directory)) = changed_directory(data, "checkpoints") else {
        return;
    };
    let options = CheckpointOptions {
        allocation_bytes: 4 << 10,
        slack_bytes: 64 << 10,
    };
    let (disk, cipher) = (Arc::new(SimDisk::default()), directory.cipher("checkpoints"));
    if let Ok((store, _)) = CheckpointStore::open_with(disk, &directory.checkpoints(), options, cipher.as_ref()) {
        let _whole_or_damaged = store.verify();
    }
});
