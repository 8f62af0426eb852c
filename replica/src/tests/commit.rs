//! The commit thread on a disk that fails: nothing that is not durable is seen or acknowledged.

use super::script;
use crate::certification::RootKey;
use crate::checkpoints::{self, CheckpointWriter};
use crate::commit::{self, Commit, CommitQueue, Committed, Publisher};
use crate::config::{CheckpointsConfig, OutcallsConfig, PoolConfig};
use crate::dirty_memory::DirtyMemory;
use crate::failure::Failure;
use crate::log_writer::LogWriter;
use crate::machine::StateMachine;
use crate::outside::{OutsideCalls, ThresholdSecrets, World};
use crate::pool::{Admission, IngressPool};
use crate::snapshot::Published;
use crate::waiters::Waiters;
use crossbeam::channel::{Receiver, unbounded};
use replicore_engine::{Engine, EngineConfig};
use replicore_netstack::CallReply;
use replicore_persistence::disk::SimDisk;
use replicore_persistence::{BatchLog, BatchLogOptions, StateDirectory};
use replicore_types::{Batch, MessageId, SubnetConfig};
use std::sync::Arc;
use std::time::{Duration, Instant};

#[test]
fn a_batch_that_cannot_be_logged_is_never_published_nor_acknowledged() {
    let directory = tempfile::tempdir().unwrap();
    let opened = StateDirectory::open(directory.path()).unwrap();
    let engine = Arc::new(Engine::new(EngineConfig::default()).unwrap());
    let mut machine = StateMachine::for_test(SubnetConfig::default(), engine);
    let (pool, waiters) = (Arc::new(IngressPool::new(PoolConfig::default())), Arc::default());
    let failure = Arc::new(Failure::new(Arc::clone(&pool), Arc::clone(&waiters)));
    let (published, disk) = (Arc::new(Published::default()), Arc::new(SimDisk::default()));
    let options = BatchLogOptions {
        segment_bytes: 1 << 20,
        salt: 1,
        prepare_ahead: false,
    };
    let writer = Arc::new(CheckpointWriter::open(&opened).unwrap().0);
    let config = CheckpointsConfig::default();
    let memory = Arc::new(DirtyMemory::new(&config));
    let (checkpoints, checkpoint) = checkpoints::start(writer, &config, memory, Arc::default(), &failure).unwrap();
    let world = World {
        pool: Arc::clone(&pool),
        published: Arc::clone(&published),
        engine: Arc::clone(machine.engine()),
        failure: Arc::clone(&failure),
    };
    let secrets = ThresholdSecrets::from_seed([1; 32]);
    let (outside, _signer) = OutsideCalls::start(&OutcallsConfig::default(), secrets, world).unwrap();
    let log = LogWriter {
        log: BatchLog::open(Arc::clone(&disk) as _, &opened.log(), options)
            .unwrap()
            .0,
        truncate_below: Arc::default(),
        log_bytes: 0,
        has_followers: false,
        spans: None,
        failure: Arc::clone(&failure),
    };
    let publisher = Publisher {
        outside,
        root_key: Arc::new(RootKey::load_or_create(directory.path()).unwrap()),
        published: Arc::clone(&published),
        waiters: Arc::clone(&waiters),
        pool: Arc::clone(&pool),
        checkpoints,
        feed: None,
        spans: None,
        failure: Arc::clone(&failure),
    };
    let commit = Commit { log, publisher };
    let (queue, receiver) = commit::queue();
    let thread = std::thread::spawn(move || commit.run(receiver));
    let mut batches = script::batches(12).into_iter();

    let batch = batches.next().unwrap();
    let answer = wait_for(&waiters, batch.messages[0].message_id);
    round(&mut machine, &queue, batch);
    let answer = answer.recv_timeout(Duration::from_secs(10)).unwrap();
    assert!(matches!(answer, CallReply::Certificate(_)), "{answer:?}");
    assert_eq!(published.load().unwrap().state.metadata.height.0, 1);

    disk.fail_after(Some(0));
    let batch = batches.next().unwrap();
    let answer = wait_for(&waiters, batch.messages[0].message_id);
    round(&mut machine, &queue, batch);
    let answer = answer.recv_timeout(Duration::from_secs(10)).unwrap();
    assert!(matches!(answer, CallReply::Busy(_)), "{answer:?}");
    thread.join().unwrap();
    assert_eq!(published.load().unwrap().state.metadata.height.0, 1);
    assert!(
        failure.get().unwrap().contains("could not be made durable"),
        "{:?}",
        failure.get()
    );
    let late = batches.nth(1).unwrap().messages.remove(0);
    assert!(matches!(pool.offer(late), Admission::Full(_)));
    assert!(
        queue.log([0; 32], Arc::new(Batch::default())).is_err(),
        "the round thread learns of it"
    );
    checkpoint.join().unwrap();
}

fn wait_for(waiters: &Waiters, id: MessageId) -> Receiver<CallReply> {
    let (answer, answered) = unbounded();
    let respond = Box::new(move |reply| answer.send(reply).unwrap());
    assert!(
        waiters
            .register(id, Instant::now() + Duration::from_secs(60), respond)
            .is_ok()
    );
    answered
}

/// What the round thread does with a batch. The commit thread may be gone before the round is over.
fn round(machine: &mut StateMachine, queue: &CommitQueue, batch: Batch) {
    queue
        .log(machine.state().certified_root(), Arc::new(batch.clone()))
        .unwrap();
    let statistics = machine.execute_batch(batch);
    let _gone = queue.certify(Committed {
        state: machine.state().clone(),
        statistics,
    });
}
