//! Queries over whole histories: with the result cache or without, on whatever thread and however often they are asked,
//! the answer is that of executing anew on the same state, and its signature is the node's over it.

use super::script;
use crate::certification::{NodeKey, QueryOutcome, RootKey, sign_query_response};
use crate::config::{PoolConfig, QueriesConfig};
use crate::failure::Failure;
use crate::machine::StateMachine;
use crate::pool::IngressPool;
use crate::queries::{self, Queries, QueryHandler, evaluate};
use crate::snapshot::{CertifiedSnapshot, Published};
use crossbeam::channel::unbounded;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use replicore_engine::{DataCertificate, Engine, EngineConfig};
use replicore_netstack::{Query, QueryReply, QueryResponse, Target};
use replicore_scheduler::query::QueryCall;
use replicore_types::{CanisterId, MessageId, Payload, PrincipalId, SubnetConfig};
use std::sync::Arc;

/// Histories; `REPLICORE_QUERY_SEEDS` runs more of them.
const SEEDS: u64 = 3;
const QUERIES_PER_STATE: usize = 12;
const METHODS: [&str; 9] = [
    "read",
    "clock",
    "balance",
    "caller",
    "certificate",
    "writes",
    "traps",
    "relay",
    "missing",
];

/// Two ways to answer the queries of one node.
struct Node {
    key: Arc<NodeKey>,
    published: Arc<Published>,
    cached: Queries,
    uncached: Queries,
}

impl Node {
    fn new(engine: &Arc<Engine>, directory: &std::path::Path) -> Self {
        let key = Arc::new(NodeKey::load_or_create(directory).unwrap());
        let published = Arc::new(Published::default());
        let pool = Arc::new(IngressPool::new(PoolConfig::default()));
        let failure = Arc::new(Failure::new(pool, Arc::default()));
        let start = |cache_bytes_max| {
            let config = QueriesConfig {
                cache_bytes_max,
                ..QueriesConfig::default()
            };
            let (key, failure) = (Arc::clone(&key), Arc::clone(&failure));
            let handler = QueryHandler::new(Arc::clone(&published), Arc::clone(engine), key, failure, &config);
            // The threads end with the handle.
            queries::start(handler, 1).unwrap().0
        };
        let (cached, uncached) = (start(1 << 20), start(0));
        Self {
            key,
            published,
            cached,
            uncached,
        }
    }

    fn ask(&self, queries: &Queries, call: &QueryCall, message_id: MessageId) -> QueryReply {
        let (answer, answered) = unbounded();
        let query = Query {
            target: Target::Canister(call.receiver),
            message_id,
            source: call.source,
            receiver: call.receiver,
            method_name: call.method.clone(),
            method_payload: call.argument.clone(),
            sender_info: None,
        };
        queries.ask(query, Box::new(move |reply| answer.send(reply).unwrap()));
        answered.recv().unwrap().expect("no bound is reached")
    }

    /// Asks in every way and compares.
    fn check(&self, snapshot: &Arc<CertifiedSnapshot>, engine: &Engine, call: &QueryCall, number: u64) {
        let certificate = DataCertificate(Arc::clone(snapshot) as _);
        let expected = evaluate(&snapshot.state, engine, call.clone(), Some(certificate));
        let id = |part: u8| {
            let mut id = [part; 32];
            id[..8].copy_from_slice(&number.to_be_bytes());
            MessageId(id)
        };
        // The same request twice, and another one with the same question.
        for (queries, id) in [
            (&self.cached, id(1)),
            (&self.cached, id(1)),
            (&self.cached, id(2)),
            (&self.uncached, id(1)),
        ] {
            let reply = self.ask(queries, call, id);
            assert_eq!(format!("{:?}", reply.response), format!("{expected:?}"), "{call:?}");
            assert_eq!(reply.timestamp, snapshot.state.metadata.time);
            let outcome = match &reply.response {
                QueryResponse::Replied(reply) => QueryOutcome::Replied(reply),
                QueryResponse::Rejected(error) => QueryOutcome::Rejected(error),
            };
            let signature = sign_query_response(&self.key, outcome, &id, reply.timestamp);
            assert_eq!(reply.signature, signature, "{call:?}");
        }
    }
}

/// A question about one of the canisters, or about one that does not exist.
fn any_call(choices: &mut ChaCha8Rng) -> QueryCall {
    let mut canister = || CanisterId::from_index(choices.random_range(0..=script::CANISTERS));
    let (receiver, other) = (canister(), canister());
    QueryCall {
        source: match choices.random_range(0..2) {
            0 => PrincipalId::anonymous(),
            _ => PrincipalId::self_authenticating([1; 44]),
        },
        receiver,
        method: METHODS[choices.random_range(0..METHODS.len())].into(),
        argument: Payload::from(other.as_slice()),
        caller_info: None,
    }
}

#[test]
fn every_way_to_an_answer_gives_the_same_one() {
    let seeds = std::env::var("REPLICORE_QUERY_SEEDS").ok();
    let seeds = seeds.map_or(SEEDS, |seeds| seeds.parse().expect("a number of seeds"));
    let engine = Arc::new(Engine::new(EngineConfig::default()).unwrap());
    let directory = tempfile::tempdir().unwrap();
    let root_key = RootKey::from_seed(&[5; 32]).unwrap();
    let (mut hits, mut stale) = (0, 0);
    for seed in 0..seeds {
        let node = Node::new(&engine, directory.path());
        let mut machine = StateMachine::for_test(SubnetConfig::default(), Arc::clone(&engine));
        let mut choices = ChaCha8Rng::seed_from_u64(seed);
        // What was asked before is asked again of later states.
        let mut asked: Vec<QueryCall> = Vec::new();
        for batch in script::batches(seed) {
            machine.execute_batch(batch);
            let snapshot = node
                .published
                .store(CertifiedSnapshot::certify(machine.state().clone(), &root_key));
            for number in 0..QUERIES_PER_STATE {
                let call = match asked.is_empty() || choices.random_bool(0.4) {
                    true => any_call(&mut choices),
                    false => asked[choices.random_range(0..asked.len())].clone(),
                };
                let height = snapshot.state.metadata.height.0;
                node.check(&snapshot, &engine, &call, height * 1_000 + number as u64);
                asked.push(call);
            }
        }
        let cache = node.cached.observer().stats().cache;
        assert_eq!(node.uncached.observer().stats().cache.hits, 0);
        (hits, stale) = (hits + cache.hits, stale + cache.stale);
    }
    assert!(hits > 50 * seeds && stale > seeds, "{hits} hits, {stale} stale");
}
