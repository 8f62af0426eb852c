//! Any bytes as segment files of a batch log: records or an error, and a log that opens goes on.
#![no_main]

use libfuzzer_sys::fuzz_target;
use replicore_persistence::disk::SimDisk;
use replicore_persistence::{BatchLog, BatchLogOptions};
use std::sync::Arc;

fuzz_target!(|data: &[u8]| {
    let directory = tempfile::tempdir().expect("a directory");
    for (number, bytes) in data.chunks(16 << 10).enumerate() {
        let path = directory.path().join(format!("{number:016x}.segment"));
        std::fs::write(path, bytes).expect("written");
    }
    let options = BatchLogOptions {
        segment_bytes: 16 << 10,
        salt: 1,
    };
    let Ok((mut log, _)) = BatchLog::open(Arc::new(SimDisk::default()), directory.path(), options) else {
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
