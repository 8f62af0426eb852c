//! The ledger on Redis: a key per account, a Lua script per transfer, the append-only file synced before each answer
//! (`appendfsync always`). Snapshots are off.
//!
//! The few commands in use are written by hand; a client library would do no less per command.

use super::{OPENING_BALANCE, Store, command, directory, until_ready};
use crate::BenchError;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Child;
use tempfile::TempDir;

/// Redis runs a script whole and alone, and logs its writes as one transaction.
const SCRIPT: &str = "
    local payer = tonumber(redis.call('GET', KEYS[1]) or ARGV[2])
    local amount = tonumber(ARGV[1])
    if payer < amount then return redis.error_reply('insufficient funds') end
    redis.call('SET', KEYS[1], payer - amount)
    redis.call('SET', KEYS[2], tonumber(redis.call('GET', KEYS[2]) or ARGV[2]) + amount)
    return redis.call('INCR', 'transfers')";

/// A running server.
pub struct Redis {
    server: Child,
    directory: TempDir,
    script: String,
}

/// One connection.
pub struct Connection {
    stream: BufReader<UnixStream>,
    script: String,
}

impl Redis {
    /// Starts a server of its own, reachable only through a socket in its directory.
    ///
    /// # Errors
    /// [`BenchError::LeftOut`] where Redis is not installed.
    pub fn start() -> Result<Self, BenchError> {
        let program = Path::new("/usr/bin/redis-server");
        if !program.is_file() {
            let why = "Redis is not installed; `cargo xtask peers` installs it";
            return Err(BenchError::LeftOut(why.to_owned()));
        }
        let directory = directory(None)?;
        let server = command(program, None)
            .args([
                "--port",
                "0",
                "--save",
                "",
                "--appendonly",
                "yes",
                "--appendfsync",
                "always",
            ])
            .arg("--dir")
            .arg(directory.path())
            .arg("--unixsocket")
            .arg(directory.path().join("redis.sock"))
            .spawn()
            .map_err(BenchError::new)?;
        let mut redis = Self {
            server,
            directory,
            script: String::new(),
        };
        let mut connection = until_ready("Redis", || redis.connect())?;
        redis.script = connection.command(&[b"SCRIPT", b"LOAD", SCRIPT.as_bytes()])?;
        Ok(redis)
    }

    /// A connection of its own.
    pub fn connect(&self) -> Result<Connection, BenchError> {
        let stream = UnixStream::connect(self.directory.path().join("redis.sock")).map_err(BenchError::new)?;
        Ok(Connection {
            stream: BufReader::new(stream),
            script: self.script.clone(),
        })
    }

    /// Syncs the append-only file once a second instead of before every answer, or before every answer again.
    ///
    /// # Errors
    /// The server refuses.
    pub fn sync_every_second(&self, is_relaxed: bool) -> Result<(), BenchError> {
        let policy: &[u8] = if is_relaxed { b"everysec" } else { b"always" };
        let set: [&[u8]; 4] = [b"CONFIG", b"SET", b"appendfsync", policy];
        self.connect()?.command(&set).map(drop)
    }

    /// The number of transfers.
    pub fn transfers(&self) -> Result<u64, BenchError> {
        let count = self.connect()?.command(&[b"GET", b"transfers"])?;
        count.parse().map_err(BenchError::new)
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        // Nothing it holds is wanted any more, and it leaves nothing outside its directory.
        let _dead = self.server.kill();
        let _dead = self.server.wait();
    }
}

impl Connection {
    /// Sends one command and reads its answer: a number or a text, as text.
    fn command(&mut self, words: &[&[u8]]) -> Result<String, BenchError> {
        let mut request = Vec::with_capacity(256);
        write!(request, "*{}\r\n", words.len()).map_err(BenchError::new)?;
        for word in words {
            write!(request, "${}\r\n", word.len()).map_err(BenchError::new)?;
            request.extend_from_slice(word);
            request.extend_from_slice(b"\r\n");
        }
        self.stream.get_mut().write_all(&request).map_err(BenchError::new)?;
        let line = self.line()?;
        match line.as_bytes().first() {
            Some(b':' | b'+') => Ok(line[1..].to_owned()),
            Some(b'$') if line != "$-1" => self.line(),
            _ => Err(BenchError::new(format!("Redis answered {line}"))),
        }
    }

    fn line(&mut self) -> Result<String, BenchError> {
        let mut line = String::new();
        if self.stream.read_line(&mut line).map_err(BenchError::new)? == 0 {
            return Err(BenchError::new("Redis closed the connection"));
        }
        Ok(line.trim_end().to_owned())
    }
}

impl Store for Connection {
    fn transfer(&mut self, payer: &[u8], payee: &[u8], amount: u64) -> Result<u64, BenchError> {
        let (amount, opening) = (amount.to_string(), OPENING_BALANCE.to_string());
        let script = self.script.clone();
        let words: [&[u8]; 7] = [
            b"EVALSHA",
            script.as_bytes(),
            b"2",
            payer,
            payee,
            amount.as_bytes(),
            opening.as_bytes(),
        ];
        self.command(&words)?.parse().map_err(BenchError::new)
    }
}
