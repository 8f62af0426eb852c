//! The `replicore` program under SIGKILL: what was acknowledged is there, once.

use candid::{CandidType, Decode, Deserialize, Encode, Principal};
use replicore_workloads::agent::fetch_root_key;
use replicore_workloads::certificate::{RequestStatus, Verifier};
use replicore_workloads::http::Connection;
use replicore_workloads::request::{Content, Kind, Signed};
use replicore_workloads::{Agent, CallOutcome, Identity, ledger};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

const USERS: u64 = 6;
const KILLS: u64 = 5;

#[derive(CandidType)]
struct Transfer {
    to: Principal,
    amount: u64,
}

#[derive(CandidType, Deserialize)]
enum Transferred {
    Ok(u64),
    Err(String),
}

/// A replica in a process of its own.
struct Process {
    child: Child,
    address: SocketAddr,
}

impl Process {
    fn start(folder: &Path) -> Self {
        let port_file = folder.join("port");
        let mut child = command(folder).arg("--port-file").arg(&port_file).spawn().unwrap();
        let deadline = Instant::now() + Duration::from_secs(60);
        // A file that a kill has left names the old port until the new process has the directory.
        let address = loop {
            assert!(Instant::now() < deadline, "not ready within a minute");
            assert!(
                child.try_wait().unwrap().is_none(),
                "the replica ended while it started"
            );
            let port = std::fs::read_to_string(&port_file).ok();
            if let Some(port) = port.and_then(|text| text.trim().parse::<u16>().ok()) {
                let address = SocketAddr::from(([127, 0, 0, 1], port));
                if fetch_root_key(address).is_ok() {
                    break address;
                }
            }
            std::thread::sleep(Duration::from_millis(5));
        };
        Self { child, address }
    }

    fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// SIGTERM, and how the process ended.
    fn terminate(mut self) -> (Option<i32>, Duration) {
        let start = Instant::now();
        let sent = Command::new("kill").arg(self.child.id().to_string()).status().unwrap();
        assert!(sent.success());
        (self.child.wait().unwrap().code(), start.elapsed())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Where a test failed; otherwise the process is gone by now.
        let _gone = self.child.kill();
        let _reaped = self.child.wait();
    }
}

fn command(folder: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_replicore"));
    command
        .args(["start", "--listen", "127.0.0.1:0", "--cores", "2", "--state-dir"])
        .arg(folder.join("state"))
        .env("RUST_LOG", "warn")
        .stdout(Stdio::null());
    command
}

/// A user who sends a transfer until it is certified, through any number of crashes, and then the next one.
struct User {
    identity: Identity,
    number: u64,
    made: u64,
    /// The transfer whose fate is not known: it is sent again as it is.
    open: Option<(Signed, u64, u64)>,
    /// What was acknowledged: to whom, and how much.
    acknowledged: Vec<(u64, u64)>,
}

impl User {
    fn new(number: u64) -> Self {
        Self {
            identity: Identity::numbered(number),
            number,
            made: 0,
            open: None,
            acknowledged: Vec::new(),
        }
    }

    fn next(&mut self, ledger: Principal) -> (Signed, u64, u64) {
        self.made += 1;
        let to = (self.number + 1 + self.made % (USERS - 1)) % USERS;
        let amount = 1 + self.made % 9;
        let receiver = Identity::numbered(to).principal();
        let argument = Encode!(&Transfer { to: receiver, amount }).unwrap();
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        let content = Content {
            kind: Kind::Call,
            canister: ledger,
            method: "transfer",
            argument: &argument,
            ingress_expiry: (now + Duration::from_secs(240)).as_nanos() as u64,
            nonce: u128::from(self.made).to_be_bytes(),
        };
        (content.sign(&self.identity), to, amount)
    }

    /// Transfers until the connection breaks or `stop` is raised.
    fn run(
        &mut self,
        address: SocketAddr,
        ledger: Principal,
        verifier: &Verifier,
        stop: &AtomicBool,
        count: &AtomicU64,
    ) {
        let mut connection = Connection::new(address);
        let path = format!("/api/v3/canister/{ledger}/call");
        while !stop.load(Ordering::Relaxed) {
            let open = self.open.take().unwrap_or_else(|| self.next(ledger));
            let response = connection.request("POST", &path, &open.0.envelope);
            let certified = match &response {
                Ok(response) if response.status == 200 => verifier
                    .request_status(&certificate(&response.body), &open.0.request_id)
                    .unwrap(),
                Ok(_) | Err(_) => {
                    self.open = Some(open);
                    if response.is_err() {
                        return;
                    }
                    continue;
                }
            };
            let RequestStatus::Replied(reply) = certified else {
                panic!("{certified:?}")
            };
            match Decode!(&reply, Transferred).unwrap() {
                Transferred::Ok(_) => self.acknowledged.push((open.1, open.2)),
                Transferred::Err(error) => panic!("transfer refused: {error}"),
            }
            count.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// The `certificate` of a call's answer.
fn certificate(body: &[u8]) -> Vec<u8> {
    let mut decoder = minicbor::Decoder::new(body);
    if decoder.datatype().unwrap() == minicbor::data::Type::Tag {
        decoder.tag().unwrap();
    }
    for _ in 0..decoder.map().unwrap().unwrap() {
        if decoder.str().unwrap() == "certificate" {
            return decoder.bytes().unwrap().to_vec();
        }
        decoder.skip().unwrap();
    }
    panic!("the answer holds no certificate: {}", String::from_utf8_lossy(body));
}

fn opening_balance(address: SocketAddr, ledger: Principal, verifier: &Arc<Verifier>) -> u64 {
    let mut agent = Agent::new(address, Identity::numbered(0), Arc::clone(verifier));
    match agent.query(ledger, "opening_balance", &Encode!(&()).unwrap()).unwrap() {
        CallOutcome::Replied(reply) => Decode!(&reply, u64).unwrap(),
        other => panic!("{other:?}"),
    }
}

fn expected_balances(users: &[User], opening: u64) -> Vec<(Principal, u64)> {
    let mut balances = vec![opening; users.len()];
    for user in users {
        for (to, amount) in &user.acknowledged {
            balances[user.number as usize] -= amount;
            balances[*to as usize] += amount;
        }
    }
    let owners = (0..).map(|number| Identity::numbered(number).principal());
    owners.zip(balances).collect()
}

#[test]
fn acknowledged_transfers_survive_sigkill_and_count_once() {
    let folder = tempfile::tempdir().unwrap();
    let mut process = Process::start(folder.path());
    let verifier = Arc::new(Verifier::new(&fetch_root_key(process.address).unwrap()).unwrap());
    let mut deployer = Agent::new(process.address, Identity::numbered(0), Arc::clone(&verifier));
    let ledger = ledger::deploy(&mut deployer).unwrap();
    let opening = opening_balance(process.address, ledger, &verifier);
    let mut users: Vec<User> = (0..USERS).map(User::new).collect();
    let count = AtomicU64::new(0);
    // Odd numbers spread the moments over the phases of a round.
    let moments = [37_u64, 211, 5, 323, 118];
    for kill in 0..=KILLS {
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
            if kill < KILLS {
                std::thread::sleep(Duration::from_millis(moments[kill as usize % moments.len()]));
                running.take().unwrap().kill();
            } else {
                // At the end every open transfer is certified before the users stop.
                stop.store(true, Ordering::Relaxed);
            }
        });
        process = running.unwrap_or_else(|| Process::start(folder.path()));
        // Transfers whose answers were lost are settled, so that the balances are known to the last token.
        for user in users.iter_mut().filter(|user| user.open.is_some()) {
            settle(user, process.address, ledger, &verifier, &count);
        }
        ledger::check(process.address, ledger, &verifier, &expected_balances(&users, opening)).unwrap();
    }
    assert!(count.load(Ordering::Relaxed) > 20 * KILLS);
    let (code, took) = process.terminate();
    assert_eq!(code, Some(0));
    assert!(took < Duration::from_secs(5), "{took:?}");
    look_at_what_is_left(&folder.path().join("state"), ledger);
}

/// The commands for a directory at rest: all of them agree, and damage is named.
fn look_at_what_is_left(state: &Path, ledger: Principal) {
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

    // The first page of the files belongs to the only canister.
    let checkpoints = std::fs::read_dir(state.join("checkpoints")).unwrap();
    let mut pages = checkpoints.map(|entry| entry.unwrap().path());
    let pages = pages.find(|path| path.to_string_lossy().contains("pages-")).unwrap();
    let mut bytes = std::fs::read(&pages).unwrap();
    bytes[100] ^= 1;
    std::fs::write(&pages, bytes).unwrap();
    let verified = offline(&["verify"], state);
    assert_eq!(verified.status.code(), Some(1));
    let text = stdout_of(&verified);
    let file = pages.file_name().unwrap().to_string_lossy().into_owned();
    assert!(
        text.contains(&file) && text.contains("byte 0") && text.contains(&ledger.to_text()),
        "{text}"
    );
    let nothing = offline(&["verify"], &state.join("nothing-here"));
    assert!(stderr_of(&nothing).contains("no state directory"), "{nothing:?}");
}

fn offline(arguments: &[&str], state: &Path) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_replicore"));
    command
        .args(arguments)
        .arg(state)
        .env("RUST_LOG", "warn")
        .output()
        .unwrap()
}

fn stdout_of(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Sends the open transfer until it is certified.
fn settle(user: &mut User, address: SocketAddr, ledger: Principal, verifier: &Verifier, count: &AtomicU64) {
    let (target, acknowledged) = (user.acknowledged.len() + 1, AtomicBool::new(false));
    let settled = AtomicU64::new(0);
    std::thread::scope(|scope| {
        let (settled, stop) = (&settled, &acknowledged);
        scope.spawn(move || {
            while settled.load(Ordering::Relaxed) == 0 {
                std::thread::sleep(Duration::from_micros(100));
            }
            stop.store(true, Ordering::Relaxed);
        });
        user.run(address, ledger, verifier, stop, settled);
        assert!(user.acknowledged.len() >= target);
    });
    count.fetch_add(settled.load(Ordering::Relaxed), Ordering::Relaxed);
}

fn stderr_of(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
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
    assert!(took < Duration::from_secs(3), "{took:?}");
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
        let output = command(folder.path()).arg("--config").arg(&file).output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{text}");
        assert!(stderr_of(&output).contains(expected), "{text}: {}", stderr_of(&output));
    }
    assert!(
        !folder.path().join("state").exists(),
        "nothing is created for a configuration that is wrong"
    );
}
