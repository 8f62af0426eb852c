//! A golden batch log, in clear or encrypted, with bytes changed anywhere, or cut off: records or an error, and a log that
//! opens goes on.
#![no_main]

use libfuzzer_sys::fuzz_target;
use replicore_persistence::disk::SimDisk;
use replicore_persistence::{BatchLog, BatchLogOptions};
use replicore_persistence_fuzz::changed_directory;
use std::sync::Arc;

fuzz_target!(|data: &[u8]| {
    let Some((_files, directory)) = changed_directory(data, "log") else {
        return;
    };
    let options = BatchLogOptions {
        segment_bytes: 16 << 10,
        salt: 1,
        prepare_ahead: false,
    };
    let (disk, cipher) = (Arc::new(SimDisk::default()), directory.cipher("log"));
    let Ok((mut log, _)) = BatchLog::open_with(disk, &directory.log(), options, cipher.as_ref()) else {
        return;
    };
    let heights = log
        .read_from(0)
        .expect("opened")
        .map_while(Result::ok)
        .map(|(height, _)| height);
    assert!(heights.collect::<Vec<_>>().is_sorted());
    if let Some(next) = log.last_height().map_or(Some(0), |last| last.checked_add(1)) {
        log.append(next, b"the next")
            .and_then(|()| log.sync())
            .expect("goes on");
    }
});
