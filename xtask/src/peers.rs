//! `cargo xtask peers`: installs what replicore is compared with, from Debian's packages.
//!
//! Without them `replicore bench` leaves those figures out and says so. The servers that the packages bring are not used as
//! services: each measurement runs one of its own on a fresh directory.

use crate::shell::{self, Result};

/// Installs what is missing.
pub fn run() -> Result<()> {
    shell::ensure_debian(&["/usr/bin/redis-server"], &["redis-server"])?;
    if !has_postgres() {
        shell::ensure_debian(&["/nonexistent"], &["postgresql"])?;
    }
    shell::ensure_debian(&["/usr/sbin/nginx"], &["nginx"])?;
    println!("peers: Redis, PostgreSQL and nginx are installed");
    Ok(())
}

/// Debian keeps the programs of each version in a folder of its own, outside the search path.
fn has_postgres() -> bool {
    let versions = std::fs::read_dir("/usr/lib/postgresql");
    versions.is_ok_and(|versions| {
        versions
            .flatten()
            .any(|version| version.path().join("bin/postgres").is_file())
    })
}
