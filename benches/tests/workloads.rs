//! Every modelled application at small scale on a real replica: deployed, driven by several users at once, checked.

use replicore::Replica;
use replicore::config::{Config, EngineSettings};
use replicore_engine::Tiers;
use replicore_workloads::agent::fetch_root_key;
use replicore_workloads::arrival::Arrivals;
use replicore_workloads::certificate::Verifier;
use replicore_workloads::load::{self, LoadOptions, Progress};
use replicore_workloads::login::Issuer;
use replicore_workloads::recording::{Recording, ReplayOptions};
use replicore_workloads::{Agent, Deployed, Identity, Scale, Workload, management, models, passkey};
use std::fs::File;
use std::io::BufReader;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

const USERS: u64 = 12;

/// Anonymous, with their own keys, with session keys that those, passkeys and a canister delegate to: in turn.
fn users(agent: &mut Agent) -> Vec<Identity> {
    let issuer = Issuer::deploy(agent).unwrap();
    let user = |number: u64| match (number % 5, [number as u8; 32]) {
        (0, _) => Identity::anonymous(),
        (1, _) => Identity::numbered(number),
        (2, secret) => Identity::numbered(number).with_session(secret, hours_from_now()),
        (3, secret) => passkey::session(secret, hours_from_now()).unwrap(),
        (_, secret) => issuer
            .log_in(agent, &Identity::numbered(number), secret, hours_from_now())
            .unwrap(),
    };
    let users = (0..USERS).map(user).collect();
    agent.set_identity(Identity::numbered(0));
    users
}

fn hours_from_now() -> u64 {
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap();
    (now + Duration::from_secs(7_200)).as_nanos() as u64
}

fn drive(model: &dyn Workload, address: SocketAddr, rate: Option<f64>) -> Box<dyn Deployed> {
    let verifier = Arc::new(Verifier::new(&fetch_root_key(address).unwrap()).unwrap().sampling(8));
    let mut agent = Agent::new(address, Identity::numbered(0), Arc::clone(&verifier));
    let users = users(&mut agent);
    let scale = Scale {
        users: users.iter().map(Identity::principal).collect(),
        canisters: 4,
        items: 20,
    };
    let deployed = model.deploy(&mut agent, &scale).unwrap();
    let options = LoadOptions {
        address,
        rate,
        arrivals: Arrivals::Poisson,
        connections: 4,
        duration: Duration::from_millis(300),
        user_skew: 0.5,
        seed: 1,
    };
    let report = load::run(&options, deployed.as_ref(), &users, &verifier, &Progress::default())
        .unwrap_or_else(|error| panic!("{}: {error}", model.name()));
    assert!(
        report.completed() > 0 && report.is_exact(),
        "{}: {report:?}",
        model.name()
    );
    deployed
        .check(&mut agent, true)
        .unwrap_or_else(|error| panic!("{}: {error}", model.name()));
    deployed
}

fn on_replica(test: impl FnOnce(SocketAddr)) {
    on_recorded_replica(None, test);
}

fn on_recorded_replica(record: Option<PathBuf>, test: impl FnOnce(SocketAddr)) {
    let directory = tempfile::tempdir().unwrap();
    let config = Config {
        record,
        state_dir: directory.path().join("state"),
        listen: SocketAddr::from(([127, 0, 0, 1], 0)),
        // Optimised code of thirty modules would not be ready before they are done with.
        engine: EngineSettings {
            tiers: Tiers::Baseline,
            ..EngineSettings::default()
        },
        ..Config::default()
    };
    let replica = Replica::start(&config).unwrap();
    test(replica.local_addr());
    replica.stop().unwrap();
}

#[test]
fn every_model_runs_and_its_own_check_holds() {
    on_replica(|address| {
        for model in models::ALL {
            drop(drive(model, address, None));
        }
    });
}

#[test]
fn an_open_loop_keeps_its_rate() {
    on_replica(|address| drop(drive(models::named("ledger").unwrap(), address, Some(100.0))));
}

#[test]
fn recorded_traffic_sent_to_an_empty_replica_does_the_same_there() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("recording");
    let mut deployed = None;
    on_recorded_replica(Some(file.clone()), |address| {
        deployed = Some(drive(models::named("social").unwrap(), address, None));
    });
    let recording = Recording::read(BufReader::new(File::open(&file).unwrap())).unwrap();
    // Four canisters made, installed and told of their followers, and what the users did.
    assert!(recording.len() > 12 && recording.senders() > 3, "{}", recording.len());
    on_replica(|address| {
        let verifier = Arc::new(Verifier::new(&fetch_root_key(address).unwrap()).unwrap().sampling(8));
        let options = ReplayOptions {
            address,
            speed: f64::INFINITY,
            connections: 4,
        };
        let report = recording.replay(&options, &verifier, &Progress::default()).unwrap();
        assert_eq!((report.rejected, report.load.unknown), (0, 0));
        assert_eq!(report.load.completed(), recording.len() as u64);
        // Its counts are those of the load that was recorded.
        let mut agent = Agent::new(address, Identity::numbered(0), verifier);
        deployed.unwrap().check(&mut agent, true).unwrap();
    });
}

#[test]
fn canisters_made_elsewhere_are_used_and_their_lack_says_what_to_do() {
    on_replica(|address| {
        let verifier = Arc::new(Verifier::new(&fetch_root_key(address).unwrap()).unwrap().sampling(8));
        let agent = || Agent::new(address, Identity::numbered(0), Arc::clone(&verifier));
        let made = management::create(&mut agent()).unwrap();
        let mut given = agent();
        given.use_canisters(vec![made]);
        let scale = Scale {
            users: [Identity::numbered(0).principal()].into(),
            canisters: 1,
            items: 1,
        };
        let model = models::named("game").unwrap();
        assert_eq!(model.deploy(&mut given, &scale).unwrap().canister(), made);
        // Again into the same one, which holds a module by now.
        given.use_canisters(vec![made]);
        assert_eq!(model.deploy(&mut given, &scale).unwrap().canister(), made);
        let error = model.deploy(&mut given, &scale).err().unwrap().to_string();
        assert!(error.contains("more canisters"), "{error}");
    });
}
