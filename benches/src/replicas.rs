//! How the replicas that figures are taken on are configured, and who uses them.

use replicore::config::Config;
use replicore::mechanisms::Mechanism;
use replicore_workloads::Identity;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::OnceLock;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// What every replica goes without, once [`go_without`] has said so.
static WITHOUT: OnceLock<Vec<Mechanism>> = OnceLock::new();

/// How long session keys live.
const SESSION: Duration = Duration::from_secs(8 * 60 * 60);

/// Has every replica that this process measures from now on go without some mechanisms; the first call counts.
pub fn go_without(mechanisms: Vec<Mechanism>) {
    let _first_counts = WITHOUT.set(mechanisms);
}

/// The configuration of a replica to be measured: the default one on a free port of the loopback interface.
pub(crate) fn config(state_dir: &Path) -> Config {
    let mut config = Config {
        state_dir: state_dir.to_owned(),
        listen: SocketAddr::from(([127, 0, 0, 1], 0)),
        ..Config::default()
    };
    for mechanism in WITHOUT.get().into_iter().flatten() {
        mechanism.switch_off(&mut config);
    }
    config
}

/// Users of a modelled application: a third anonymous, a third with their own keys, a third with session keys.
pub(crate) fn users(count: u64) -> Vec<Identity> {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let expiration = (since + SESSION).as_nanos() as u64;
    let user = |number: u64| match number % 3 {
        0 => Identity::anonymous(),
        1 => Identity::numbered(number),
        _ => {
            let mut secret = [0xa5; 32];
            secret[..8].copy_from_slice(&number.to_le_bytes());
            Identity::numbered(number).with_session(secret, expiration)
        }
    };
    (0..count).map(user).collect()
}
