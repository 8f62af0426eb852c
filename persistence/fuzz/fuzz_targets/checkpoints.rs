//! A golden directory of checkpoints with bytes changed anywhere, or cut off: an error, or checkpoints that can be verified
//! or are found damaged. Never a panic.
#![no_main]

use libfuzzer_sys::fuzz_target;
use replicore_persistence::disk::SimDisk;
use replicore_persistence::{CheckpointOptions, CheckpointStore};
use std::path::Path;
use std::sync::Arc;

const FILES: [&str; 3] = ["superblocks", "pages-0000000000000000", "records-0000000000000000"];

/// Changes: file (1), position (3), new byte (1); a first byte of 250 and above cuts the file off there instead.
fuzz_target!(|data: &[u8]| {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("../golden/format-1/checkpoints");
    let directory = tempfile::tempdir().expect("a directory");
    let mut files = FILES.map(|name| std::fs::read(golden.join(name)).expect("a golden file"));
    for change in data.chunks_exact(5) {
        let file = &mut files[usize::from(change[0] % 3)];
        let position = u32::from_le_bytes([change[1], change[2], change[3], 0]) as usize % file.len().max(1);
        match change[0] < 250 {
            true => file.get_mut(position).into_iter().for_each(|byte| *byte = change[4]),
            false => file.truncate(position),
        }
    }
    for (name, bytes) in FILES.iter().zip(&files) {
        std::fs::write(directory.path().join(name), bytes).expect("written");
    }
    let options = CheckpointOptions {
        allocation_bytes: 4 << 10,
        slack_bytes: 64 << 10,
    };
    if let Ok((store, _)) = CheckpointStore::open(Arc::new(SimDisk::default()), directory.path(), options) {
        let _whole_or_damaged = store.verify();
    }
});
