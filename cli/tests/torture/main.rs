//! The `replicore` program under SIGKILL: what was acknowledged is there, once.
//!
//! `cargo xtask torture --seconds N` runs the same for as long as one likes.

mod process;
mod users;

use process::{KEY_FILE, Process, command, command_with, offline, stderr_of, stdout_of, write_key};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use replicore_workloads::agent::fetch_root_key;
use replicore_workloads::certificate::Verifier;
use replicore_workloads::http::Connection;
use replicore_workloads::{Agent, Identity, ledger};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};
use users::{USERS, User, expected_balances, opening_balance, settle};

/// Kills of a run of which nobody said how long it should take.
const KILLS: u64 = 6;
/// From the first acknowledged transfers to the kill, at most.
const MOMENT_MILLISECONDS_MAX: u64 = 400;

/// How long a run goes on, and the moments of its kills.
struct Plan {
    rng: ChaCha8Rng,
    end: Option<Instant>,
    kills: u64,
}

impl Plan {
    /// `REPLICORE_TORTURE_SECONDS` and `REPLICORE_TORTURE_SEED` of the environment. Moments repeat with a seed, what
    /// the replica is doing then does not.
    fn from_environment() -> Self {
        let number = |name| std::env::var(name).ok().map(|text| text.parse::<u64>().unwrap());
        let seed = number("REPLICORE_TORTURE_SEED").unwrap_or(1);
        println!("moments of seed {seed}");
        Self {
            rng: ChaCha8Rng::seed_from_u64(seed),
            end: number("REPLICORE_TORTURE_SECONDS").map(|seconds| Instant::now() + Duration::from_secs(seconds)),
            kills: 0,
        }
    }

    /// When the replica under load is to be killed next; `None` where there were enough kills.
    fn next(&mut self) -> Option<Duration> {
        let is_over = match self.end {
            Some(end) => Instant::now() >= end,
            None => self.kills >= KILLS,
        };
        if is_over {
            return None;
        }
        self.kills += 1;
        Some(Duration::from_millis(self.rng.random_range(0..MOMENT_MILLISECONDS_MAX)))
    }

    /// Moments to kill the replica while it starts again: mostly none.
    fn at_start(&mut self) -> Option<Duration> {
        let is_killed = self.rng.random_bool(0.3);
        is_killed.then(|| Duration::from_micros(self.rng.random_range(0..150_000)))
    }
}

#[test]
fn acknowledged_transfers_survive_sigkill_and_count_once() {
    let folder = tempfile::tempdir().unwrap();
    let ledger = torture(folder.path(), Plan::from_environment());
    look_at_what_is_left(&folder.path().join("state"), ledger, 4096);
}

#[test]
fn acknowledged_transfers_survive_sigkill_in_an_encrypted_directory() {
    let folder = tempfile::tempdir().unwrap();
    write_key(folder.path(), KEY_FILE, "a");
    let mut plan = Plan::from_environment();
    (plan.end, plan.kills) = (None, KILLS - 3);
    let ledger = torture(folder.path(), plan);
    let state = folder.path().join("state");
    show_that_the_key_is_needed(folder.path(), &state);
    // Pages are followed by their tags.
    look_at_what_is_left(&state, ledger, 4112);
}

/// A missing and another key are refused, a new key takes over, and no file has the code of the ledger in it.
fn show_that_the_key_is_needed(folder: &Path, state: &Path) {
    let key = folder.join(KEY_FILE);
    let hidden = folder.join("hidden");
    std::fs::rename(&key, &hidden).unwrap();
    for command in [&["verify"][..], &["inspect"], &["replay"]] {
        let refused = stderr_of(&offline(command, state));
        assert!(refused.contains("is encrypted: give the key"), "{refused}");
    }
    let refused = stderr_of(&command(folder).output().unwrap());
    assert!(refused.contains("is encrypted: give the key"), "{refused}");
    write_key(folder, KEY_FILE, "b");
    let refused = stderr_of(&command(folder).output().unwrap());
    assert!(refused.contains("sealed with another key"), "{refused}");

    std::fs::rename(&hidden, &key).unwrap();
    let new = write_key(folder, "new", "c");
    let rekeyed = offline(&["rekey", "--new-encryption-key", new.to_str().unwrap()], state);
    assert_eq!(rekeyed.status.code(), Some(0), "{rekeyed:?}");
    let refused = stderr_of(&offline(&["verify"], state));
    assert!(refused.contains("sealed with another key"), "{refused}");
    std::fs::rename(&new, &key).unwrap();
    assert_eq!(Process::start(folder).terminate().0, Some(0));

    let mut folders = vec![state.to_path_buf()];
    while let Some(path) = folders.pop() {
        for entry in std::fs::read_dir(path).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let bytes = std::fs::read(&path).unwrap();
            let shows = |text: &[u8]| bytes.windows(text.len()).any(|window| window == text);
            assert!(!shows(b"canister_update "), "{}", path.display());
        }
    }
}

/// Kills replicas on one directory as planned, and stops the last one. The ledger that the load was on.
fn torture(folder: &Path, mut plan: Plan) -> candid::Principal {
    let mut process = Process::start(folder);
    let verifier = Arc::new(Verifier::new(&fetch_root_key(process.address).unwrap()).unwrap());
    let mut deployer = Agent::new(process.address, Identity::numbered(0), Arc::clone(&verifier));
    let ledger = ledger::deploy(&mut deployer).unwrap();
    let opening = opening_balance(process.address, ledger, &verifier);
    let mut users: Vec<User> = (0..USERS).map(User::new).collect();
    let count = AtomicU64::new(0);
    let (mut replayed, mut killed_at_start) = (0, 0);
    loop {
        let moment = plan.next();
        let (address, stop, before) = (process.address, AtomicBool::new(false), count.load(Ordering::Relaxed));
        let mut running = Some(process);
        std::thread::scope(|scope| {
            for user in &mut users {
                let (verifier, stop, count) = (&verifier, &stop, &count);
                scope.spawn(move || user.run(address, ledger, verifier, stop, count));
            }
            // Not before the load has begun: then at any moment.
            let begun = Instant::now();
            while count.load(Ordering::Relaxed) < before + 20 && begun.elapsed() < Duration::from_secs(30) {
                std::thread::sleep(Duration::from_millis(1));
            }
            match moment {
                Some(moment) => {
                    std::thread::sleep(moment);
                    running.take().unwrap().kill();
                }
                // At the end every open transfer is certified before the users stop.
                None => stop.store(true, Ordering::Relaxed),
            }
        });
        process = match running {
            Some(process) => process,
            None => {
                replayed += replay(&folder.join("state"));
                while let Some(moment) = plan.at_start() {
                    Process::kill_at_start(folder, moment);
                    killed_at_start += 1;
                }
                Process::start(folder)
            }
        };
        // Transfers whose answers were lost are settled, so that the balances are known to the last token.
        for user in users.iter_mut().filter(|user| user.open.is_some()) {
            settle(user, process.address, ledger, &verifier, &count);
        }
        ledger::check(process.address, ledger, &verifier, &expected_balances(&users, opening)).unwrap();
        if moment.is_none() {
            break;
        }
    }
    let (transfers, kills) = (count.load(Ordering::Relaxed), plan.kills);
    println!(
        "{kills} kills under load and {killed_at_start} during starts, {transfers} transfers acknowledged, \
         {replayed} batches replayed"
    );
    assert!(transfers > 20 * kills);
    let (code, took) = process.terminate();
    assert_eq!(code, Some(0));
    assert!(took < Duration::from_secs(30), "{took:?}");
    ledger
}

/// Executes what the killed replica has logged again, on one core, and compares every root, and the state with that of
/// the newest checkpoint. Returns the number of batches.
fn replay(state: &Path) -> u64 {
    let replayed = offline(&["replay", "--cores", "1"], state);
    assert_eq!(replayed.status.code(), Some(0), "{replayed:?}");
    let text = stdout_of(&replayed);
    assert!(text.contains("every root as recorded"), "{text}");
    text.split(' ').next().unwrap().parse().unwrap()
}

/// The commands for a directory at rest: all of them agree, and damage is named.
fn look_at_what_is_left(state: &Path, ledger: candid::Principal, page_stride: usize) {
    let verified = offline(&["verify"], state);
    assert_eq!(verified.status.code(), Some(0), "{verified:?}");
    assert!(stdout_of(&verified).contains("everything is whole"));

    let inspected = offline(&["inspect", "--json"], state);
    let facts: serde_json::Value = serde_json::from_str(&stdout_of(&inspected)).unwrap();
    assert_eq!(facts["canisters"][0]["id"], ledger.to_text());
    assert!(facts["canisters"][0]["heap_bytes"].as_u64().unwrap() > 0);
    let (height, last) = (
        facts["checkpoint_height"].as_u64(),
        facts["log"]["last_height"].as_u64(),
    );
    assert!(
        height.is_some() && height == last,
        "a stopped replica has a checkpoint of its last batch: {facts}"
    );
    assert!(stdout_of(&offline(&["inspect"], state)).contains(&ledger.to_text()));

    let replayed = offline(&["replay", "--cores", "1"], state);
    assert_eq!(replayed.status.code(), Some(0), "{replayed:?}");
    let text = stdout_of(&replayed);
    assert!(
        text.contains("every root as recorded") && text.contains("has the state that execution came to"),
        "{text}"
    );
    let first = facts["previous_checkpoint_height"].as_u64().unwrap() + 1;
    let part = stdout_of(&offline(&["replay", "--to", &first.to_string()], state));
    assert!(part.starts_with("1 batches"), "{part}");
    let refused = offline(&["replay", "--from", "0"], state);
    assert!(stderr_of(&refused).contains("nothing can be replayed"), "{refused:?}");

    // Every page of the files belongs, or belonged, to the only canister.
    let checkpoints = std::fs::read_dir(state.join("checkpoints")).unwrap();
    let mut pages = checkpoints.map(|entry| entry.unwrap().path());
    let pages = pages.find(|path| path.to_string_lossy().contains("pages-")).unwrap();
    let mut bytes = std::fs::read(&pages).unwrap();
    bytes
        .iter_mut()
        .skip(100)
        .step_by(page_stride)
        .for_each(|byte| *byte ^= 1);
    std::fs::write(&pages, bytes).unwrap();
    let verified = offline(&["verify"], state);
    assert_eq!(verified.status.code(), Some(1));
    let text = stdout_of(&verified);
    let file = pages.file_name().unwrap().to_string_lossy().into_owned();
    assert!(
        text.contains(&file) && text.contains("at byte") && text.contains(&ledger.to_text()),
        "{text}"
    );
    let nothing = offline(&["verify"], &state.join("nothing-here"));
    assert!(stderr_of(&nothing).contains("no state directory"), "{nothing:?}");
}

#[test]
fn a_second_start_is_refused_and_a_stopped_replica_leaves_no_port_file() {
    let folder = tempfile::tempdir().unwrap();
    let process = Process::start(folder.path());
    let second = command(folder.path()).output().unwrap();
    assert_eq!(second.status.code(), Some(1));
    let text = stderr_of(&second);
    assert!(
        text.contains("in use") && text.contains(&process.child.id().to_string()),
        "{text}"
    );
    // A connection that stays open does not hold it up.
    let mut kept = Connection::new(process.address);
    assert_eq!(kept.request("GET", "/api/v2/status", b"").unwrap().status, 200);
    let (code, took) = process.terminate();
    assert_eq!(code, Some(0));
    assert!(took < Duration::from_secs(20), "{took:?}");
    assert!(!folder.path().join("port").exists());
}

#[test]
fn configuration_errors_name_the_key_and_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let file: PathBuf = folder.path().join("replicore.toml");
    for (text, expected) in [
        ("no_such_key = 1", "no_such_key"),
        ("[pool]\nmessages_max = 0", "pool.messages_max"),
        ("[http]\nreceive_buffers = 3", "receive_buffers"),
        ("[rounds]\nfreshness_ms = 1", "rounds.freshness_ms"),
    ] {
        std::fs::write(&file, text).unwrap();
        let output = command_with(folder.path(), &file).output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{text}");
        assert!(stderr_of(&output).contains(expected), "{text}: {}", stderr_of(&output));
    }
    assert!(
        !folder.path().join("state").exists(),
        "nothing is created for a configuration that is wrong"
    );
}

#[test]
fn a_replica_whose_output_nobody_reads_serves() {
    let folder = tempfile::tempdir().unwrap();
    let port_file = folder.path().join("port");
    let (mut start, full) = (
        command(folder.path()),
        std::fs::File::options().write(true).open("/dev/full").unwrap(),
    );
    start.arg("--port-file").arg(&port_file).env("RUST_LOG", "info");
    let mut child = start.stdout(full.try_clone().unwrap()).stderr(full).spawn().unwrap();
    let deadline = Instant::now() + Duration::from_secs(60);
    let port = loop {
        assert!(Instant::now() < deadline, "not ready within a minute");
        assert!(
            child.try_wait().unwrap().is_none(),
            "the replica ended while it started"
        );
        match std::fs::read_to_string(&port_file)
            .ok()
            .and_then(|text| text.trim().parse::<u16>().ok())
        {
            Some(port) => break port,
            None => std::thread::sleep(Duration::from_millis(5)),
        }
    };
    assert!(fetch_root_key(SocketAddr::from(([127, 0, 0, 1], port))).is_ok());
    let process = Process {
        child,
        address: SocketAddr::from(([127, 0, 0, 1], port)),
    };
    assert_eq!(process.terminate().0, Some(0));
}
