//! Users of a ledger who know what was acknowledged to them.

use candid::{CandidType, Decode, Deserialize, Encode, Principal};
use replicore_workloads::certificate::{RequestStatus, Verifier};
use replicore_workloads::http::Connection;
use replicore_workloads::request::{Content, Kind, Signed};
use replicore_workloads::{Agent, CallOutcome, Identity};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// How many there are.
pub const USERS: u64 = 6;

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

/// A user who sends a transfer until it is certified, through any number of crashes, and then the next one.
pub struct User {
    identity: Identity,
    number: u64,
    made: u64,
    /// The transfer whose fate is not known: it is sent again as it is.
    pub open: Option<(Signed, u64, u64)>,
    /// What was acknowledged: to whom, and how much.
    acknowledged: Vec<(u64, u64)>,
}

impl User {
    pub fn new(number: u64) -> Self {
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
    pub fn run(
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

pub fn opening_balance(address: SocketAddr, ledger: Principal, verifier: &Arc<Verifier>) -> u64 {
    let mut agent = Agent::new(address, Identity::numbered(0), Arc::clone(verifier));
    match agent.query(ledger, "opening_balance", &Encode!(&()).unwrap()).unwrap() {
        CallOutcome::Replied(reply) => Decode!(&reply, u64).unwrap(),
        other => panic!("{other:?}"),
    }
}

/// What every account must hold.
pub fn expected_balances(users: &[User], opening: u64) -> Vec<(Principal, u64)> {
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

/// Sends the open transfer until it is certified.
pub fn settle(user: &mut User, address: SocketAddr, ledger: Principal, verifier: &Verifier, count: &AtomicU64) {
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
