use super::*;
use crate::api::Api;
use crate::config::ServerConfig;
use crate::envelope::Endpoint;
use crate::ring::sim::{SimulatedRing, World};
use crate::ring::sys::WakeFd;
use crate::service::*;
use crate::simulation::{envelope, post};
use crate::verify::VerifiedIngress;
use parking_lot::Mutex;
use replicore_types::{CanisterId, Payload, Time};
use std::sync::atomic::{AtomicU64, Ordering};

/// What it takes to look at a call.
const LOOK: Duration = Duration::from_millis(10);

/// Has no room, takes its time to say so, and notes how long each call has waited.
#[derive(Default)]
struct Slow {
    millis: AtomicU64,
    waited: Mutex<Vec<Duration>>,
}

impl ReplicaService for Slow {
    fn status(&self) -> StatusReport {
        StatusReport {
            root_key: Arc::from([1; 133]),
            healthy: true,
            certified_height: 7,
            implementation: "slow".into(),
        }
    }

    fn now(&self) -> Time {
        Time(1_700_000_000_000_000_000)
    }

    fn has_room(&self, _: &CanisterId, waited: Duration) -> Result<(), ServiceBusy> {
        self.waited.lock().push(waited);
        self.millis.fetch_add(LOOK.as_millis() as u64, Ordering::Relaxed);
        Err(ServiceBusy("no room"))
    }

    fn call(&self, _: VerifiedIngress, _: Target, _: bool, respond: Responder<CallReply>) {
        respond(CallReply::Accepted);
    }

    fn query(&self, _: Query, respond: Responder<Result<QueryReply, ServiceBusy>>) {
        respond(Err(ServiceBusy("no queries")));
    }

    fn read_state(&self, _: ReadState, respond: Responder<Result<Payload, ReadStateError>>) {
        respond(Err(ReadStateError::Unavailable));
    }
}

/// Each call has waited for those that the same turn looked at before, and for nothing of the turns before.
#[test]
fn the_service_is_told_how_long_the_turn_has_had_a_call() {
    const CLIENTS: usize = 20;
    let (world, service) = (World::new(1), Arc::new(Slow::default()));
    let api = Arc::new(Api::new(&ServerConfig::default(), service.clone()).unwrap());
    let clock = Arc::clone(&service);
    let mut event_loop = EventLoop::new(
        Box::new(SimulatedRing::new(world.clone())),
        api,
        NetLimits::default(),
        Arc::new(Mailbox::new(Arc::new(WakeFd::new().unwrap()))),
        Gauge::new(CLIENTS),
        Crowd::new(CLIENTS),
    )
    .with_clock(Box::new(move || {
        Duration::from_millis(clock.millis.load(Ordering::Relaxed))
    }));
    for number in 0..CLIENTS as u64 {
        let call = post("call", &envelope(Endpoint::Call, &number.to_be_bytes(), None), false);
        let mut world = world.borrow_mut();
        let pipe = world.connect();
        world.pipes[pipe].to_server.extend(call);
    }
    let (mut looked_at, mut together) = (0, 0);
    for _ in 0..10_000 {
        event_loop.turn().unwrap();
        let waited = std::mem::take(&mut *service.waited.lock());
        let expected: Vec<_> = (0..waited.len() as u32).map(|before| LOOK * before).collect();
        assert_eq!(waited, expected);
        looked_at += waited.len();
        together = together.max(waited.len());
        if looked_at == CLIENTS {
            break;
        }
    }
    assert_eq!(looked_at, CLIENTS, "all were looked at");
    assert!(together > 1, "some of them in one turn");
}
