//! What encryption at rest costs, clear and encrypted in turn in one run.

use crate::BenchError;
use crate::measure::{Effort, Figure, seconds};
use crate::persistence::Stored;
use replicore_persistence::{OperatorKey, PageIndex, StateDirectory};
use std::hint::black_box;

/// `persistence.encrypted_checkpoint_page_us`: from 4,096 dirty pages of an encrypted memory of 256 MiB to a durable
/// checkpoint, for each page; and `persistence.encrypted_read_us`: one of as many pages, read for the first time after the
/// store was opened, and decrypted. Beside each the same of a store in clear, which compares the page with its digest.
pub fn encryption(effort: &Effort) -> Result<Vec<Figure>, BenchError> {
    let pages = effort.scale(4_096);
    let (mut clear, mut sealed) = (stored(effort, false)?, stored(effort, true)?);
    let (mut clear_writes, mut clear_reads, mut reads) = (Vec::new(), Vec::new(), Vec::new());
    let writes = effort.samples(|| {
        clear_writes.push(checkpoint(&mut clear, pages)? * 1e6);
        let written = checkpoint(&mut sealed, pages)? * 1e6;
        clear_reads.push(read(&mut clear, pages)? * 1e6);
        reads.push(read(&mut sealed, pages)? * 1e6);
        Ok(written)
    })?;
    let roots = [&clear, &sealed].map(|stored| stored.memory.map.digest());
    if roots[0] != roots[1] {
        return Err(BenchError::new("an encrypted memory has another digest"));
    }
    let root = hex::encode(roots[0]);
    Ok(vec![
        Figure::of("persistence.encrypted_checkpoint_page_us", "us", writes, root.clone())
            .against("clear_us", clear_writes),
        Figure::of("persistence.encrypted_read_us", "us", reads, root).against("clear_us", clear_reads),
    ])
}

fn stored(effort: &Effort, is_sealed: bool) -> Result<Stored, BenchError> {
    let directory = tempfile::tempdir().map_err(BenchError::new)?;
    let opened = match is_sealed {
        false => StateDirectory::open(directory.path()),
        true => StateDirectory::open_encrypted(directory.path(), &OperatorKey::new([1; 32]), [2; 32]),
    };
    let cipher = opened.map_err(BenchError::new)?.cipher("checkpoints");
    Stored::with(effort.scale(65_536), cipher)
}

/// Seconds for each page.
fn checkpoint(stored: &mut Stored, pages: u64) -> Result<f64, BenchError> {
    let places = stored.memory.places(pages);
    stored.memory.commit(&places);
    Ok(stored.checkpoint()? / places.len() as f64)
}

/// Seconds for each page.
fn read(stored: &mut Stored, pages: u64) -> Result<f64, BenchError> {
    stored.reopen()?;
    let places = stored.memory.places(pages);
    let map = &stored.memory.map;
    let (elapsed, ()) = seconds(|| {
        for place in &places {
            black_box(map.get(PageIndex(*place)));
        }
    });
    Ok(elapsed / places.len() as f64)
}
