//! The ledger on PostgreSQL: a table of accounts, one transaction per transfer, committed synchronously.
//!
//! `fsync` and `synchronous_commit` are on, as they are by default. A transfer is one call of a function on the server, hence
//! one round trip; it locks its two rows in the order of their keys, so that none waits for another in a circle. Accounts are
//! opened beforehand. Transfers are numbered by a sequence, which writes less than a row each would.

use super::{Account, OPENING_BALANCE, Store, command, directory, until_ready};
use crate::BenchError;
use postgres::{Client, NoTls, Statement};
use std::path::{Path, PathBuf};
use std::process::Child;
use tempfile::TempDir;

const SCHEMA: &str = "
    CREATE TABLE account (id bytea PRIMARY KEY, balance bigint NOT NULL CHECK (balance >= 0));
    CREATE SEQUENCE transfers;
    CREATE FUNCTION transfer(payer bytea, payee bytea, amount bigint) RETURNS bigint LANGUAGE plpgsql AS $$
    BEGIN
        IF payer < payee THEN
            UPDATE account SET balance = balance - amount WHERE id = payer;
            UPDATE account SET balance = balance + amount WHERE id = payee;
        ELSE
            UPDATE account SET balance = balance + amount WHERE id = payee;
            UPDATE account SET balance = balance - amount WHERE id = payer;
        END IF;
        RETURN nextval('transfers');
    END $$;";

/// A running server with the ledger's schema.
pub struct Postgres {
    server: Child,
    programs: PathBuf,
    account: Option<Account>,
    directory: TempDir,
}

/// One connection.
pub struct Connection {
    client: Client,
    transfer: Statement,
}

impl Postgres {
    /// Starts a server of its own, reachable only through a socket in its directory, with an account for each of `owners`.
    ///
    /// # Errors
    /// [`BenchError::LeftOut`] where PostgreSQL is not installed.
    pub fn start(owners: &[&[u8]]) -> Result<Self, BenchError> {
        let programs = programs().ok_or_else(|| {
            BenchError::LeftOut("PostgreSQL is not installed; `cargo xtask peers` installs it".to_owned())
        })?;
        let account = Account::of_package("postgres");
        let directory = directory(account)?;
        let data = directory.path().join("data");
        let made = command(&programs.join("initdb"), account)
            .args(["--auth=trust", "--username=ledger", "--no-sync", "-D"])
            .arg(&data)
            .status();
        if !made.map_err(BenchError::new)?.success() {
            return Err(BenchError::new("initdb failed"));
        }
        let server = command(&programs.join("postgres"), account)
            .arg("-D")
            .arg(&data)
            .arg("-k")
            .arg(directory.path())
            .args(["-c", "listen_addresses=", "-c", "max_connections=100"])
            .spawn()
            .map_err(BenchError::new)?;
        let postgres = Self {
            server,
            programs,
            account,
            directory,
        };
        let mut client = until_ready("PostgreSQL", || postgres.client())?;
        client.batch_execute(SCHEMA).map_err(BenchError::new)?;
        client
            .execute(
                "INSERT INTO account SELECT unnest($1::bytea[]), $2",
                &[&owners, &OPENING_BALANCE],
            )
            .map_err(BenchError::new)?;
        Ok(postgres)
    }

    fn client(&self) -> Result<Client, BenchError> {
        let mut config = postgres::Config::new();
        config
            .user("ledger")
            .dbname("postgres")
            .host_path(self.directory.path());
        config.connect(NoTls).map_err(BenchError::new)
    }

    /// A connection of its own.
    pub fn connect(&self) -> Result<Connection, BenchError> {
        let mut client = self.client()?;
        let transfer = client.prepare("SELECT transfer($1, $2, $3)").map_err(BenchError::new)?;
        Ok(Connection { client, transfer })
    }

    /// What all accounts hold, and the number of transfers.
    pub fn totals(&self) -> Result<(i64, i64), BenchError> {
        let mut client = self.client()?;
        let row = client.query_one(
            "SELECT (SELECT sum(balance)::bigint FROM account), (SELECT last_value FROM transfers)",
            &[],
        );
        let row = row.map_err(BenchError::new)?;
        Ok((row.get(0), row.get(1)))
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        // A server that is killed leaves shared memory behind; one that is told to stop does not.
        let stopped = command(&self.programs.join("pg_ctl"), self.account)
            .args(["stop", "-m", "immediate", "-w", "-D"])
            .arg(self.directory.path().join("data"))
            .status();
        if !stopped.is_ok_and(|status| status.success()) {
            let _dead = self.server.kill();
        }
        let _dead = self.server.wait();
    }
}

impl Store for Connection {
    fn transfer(&mut self, payer: &[u8], payee: &[u8], amount: u64) -> Result<u64, BenchError> {
        let amount = i64::try_from(amount).map_err(BenchError::new)?;
        let row = self.client.query_one(&self.transfer, &[&payer, &payee, &amount]);
        let number: i64 = row.map_err(BenchError::new)?.get(0);
        Ok(number.unsigned_abs())
    }
}

/// Debian keeps the server's programs outside the search path, by version; the newest is taken.
fn programs() -> Option<PathBuf> {
    let versions = std::fs::read_dir("/usr/lib/postgresql").ok()?;
    let mut found: Vec<(u32, PathBuf)> = versions
        .filter_map(|entry| {
            let path = entry.ok()?.path();
            let version = path.file_name()?.to_str()?.parse().ok()?;
            Some((version, path.join("bin")))
        })
        .filter(|(_, programs)| is_complete(programs))
        .collect();
    found.sort();
    found.pop().map(|(_, programs)| programs)
}

fn is_complete(programs: &Path) -> bool {
    ["initdb", "postgres", "pg_ctl"]
        .iter()
        .all(|name| programs.join(name).is_file())
}
