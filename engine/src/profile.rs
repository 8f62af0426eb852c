//! Where instructions go and which pages are touched: profiles whose clock is the instruction counter, so that they are
//! the same on every run, machine and number of threads.
//!
//! An engine made with [`crate::EngineConfig::profile`] compiles every module with events at the entry and exit of its
//! functions (`module/profiled.rs`). Results and instruction counts are those of an ordinary run; time is not.
//!
//! What a function is charged for is what the counter shows between its events. Instructions are paid for a line at a
//! time, ahead of it (see `module/metering.rs`), hence at most the rest of the line after a call counts before it.

use crate::EntryPoint;
use replicore_types::CanisterId;
use std::collections::BTreeMap;

/// Everything that an engine has profiled.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Profile {
    /// What was executed, by canister and by entry point: `canister_update transfer`, `reply callback`.
    pub entries: BTreeMap<(CanisterId, String), EntryProfile>,
}

/// The messages that entered a canister at one point.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EntryProfile {
    /// Messages.
    pub messages: u64,
    /// Those that trapped or ran into a limit.
    pub failed: u64,
    /// Their instructions, as they are reported and charged: the sum of all nodes.
    pub instructions: u64,
    /// The tree of calls. Its root stands for the message itself: what is charged to no function.
    pub calls: CallNode,
    /// For every OS page of the heap that code loaded from, in how many messages it did. What the System API reads on
    /// behalf of the canister (the bytes of a reply, for instance) is not in it.
    pub heap_pages_read: BTreeMap<u64, u64>,
    /// For every OS page of the heap, in how many messages its content changed.
    pub heap_pages_written: BTreeMap<u64, u64>,
    /// Pages of stable memory written, over all messages.
    pub stable_pages_written: u64,
}

/// A function as called along one path.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CallNode {
    /// Times it was entered.
    pub calls: u64,
    /// Instructions charged in it, not in what it called.
    pub own_instructions: u64,
    /// What it called, by name.
    pub callees: BTreeMap<String, CallNode>,
}

/// What changed pages are charged, as a node of the tree.
pub const PAGES_CHANGED: &str = "[changed heap pages]";

impl CallNode {
    /// Instructions charged in it and in what it called.
    pub fn instructions(&self) -> u64 {
        let callees: u64 = self.callees.values().map(Self::instructions).sum();
        self.own_instructions + callees
    }
}

/// Events of one message. Ids are those of `module/profiled.rs`.
#[derive(Debug)]
pub(crate) struct Recorder {
    entry: String,
    nodes: Vec<RecordedNode>,
    current: usize,
    depth: u32,
    /// Calls that are open below [`DEPTH_MAX`].
    folded: u32,
    /// Instructions at the last event.
    executed: u64,
    /// Pages read by bulk operations, first and last.
    bulk_reads: Vec<(u64, u64)>,
}

#[derive(Debug, Default)]
struct RecordedNode {
    parent: usize,
    calls: u64,
    own_instructions: u64,
    callees: BTreeMap<u32, usize>,
}

/// Calls within calls that are told apart; what is called deeper counts for the caller at this depth.
const DEPTH_MAX: u32 = 250;

/// Ranges of pages after which those of one message are joined.
const BULK_READS_MAX: usize = 4_096;

impl Recorder {
    pub(crate) fn new(entry_point: &EntryPoint) -> Self {
        Self {
            entry: entry_name(entry_point),
            nodes: vec![RecordedNode::default()],
            current: 0,
            depth: 0,
            folded: 0,
            executed: 0,
            bulk_reads: Vec::new(),
        }
    }

    pub(crate) fn enter(&mut self, function: u32, executed: u64) {
        self.pass(executed);
        if self.depth == DEPTH_MAX {
            self.folded += 1;
            return;
        }
        self.depth += 1;
        let next = self.nodes.len();
        let node = *self.nodes[self.current].callees.entry(function).or_insert(next);
        if node == next {
            self.nodes.push(RecordedNode {
                parent: self.current,
                ..RecordedNode::default()
            });
        }
        self.nodes[node].calls += 1;
        self.current = node;
    }

    pub(crate) fn leave(&mut self, executed: u64) {
        self.pass(executed);
        if self.folded > 0 {
            self.folded -= 1;
            return;
        }
        self.depth = self.depth.saturating_sub(1);
        self.current = self.nodes[self.current].parent;
    }

    /// Notes pages that a bulk operation reads.
    pub(crate) fn read(&mut self, first: u64, last: u64) {
        if self.bulk_reads.len() == BULK_READS_MAX {
            self.join_bulk_reads();
        }
        self.bulk_reads.push((first, last));
    }

    fn join_bulk_reads(&mut self) {
        self.bulk_reads.sort_unstable();
        self.bulk_reads.dedup_by(|next, kept| {
            let touches = next.0 <= kept.1.saturating_add(1);
            if touches {
                kept.1 = kept.1.max(next.1);
            }
            touches
        });
    }

    fn pass(&mut self, executed: u64) {
        self.nodes[self.current].own_instructions += executed.saturating_sub(self.executed);
        self.executed = self.executed.max(executed);
    }
}

/// How a message ended, for its profile.
pub(crate) struct Ending<'a> {
    pub(crate) canister: CanisterId,
    /// Instructions of its code.
    pub(crate) executed: u64,
    /// Those for changed pages.
    pub(crate) page_instructions: u64,
    pub(crate) failed: bool,
    pub(crate) pages_read: Vec<u64>,
    pub(crate) pages_written: &'a [replicore_persistence::PageIndex],
    pub(crate) stable_pages_written: u64,
}

impl Profile {
    /// Adds a message. `name` gives functions their names.
    pub(crate) fn add(&mut self, mut recorder: Recorder, ending: Ending<'_>, name: impl Fn(u32) -> String) {
        recorder.pass(ending.executed);
        recorder.join_bulk_reads();
        let entry = std::mem::take(&mut recorder.entry);
        let entry = self.entries.entry((ending.canister, entry)).or_default();
        entry.messages += 1;
        entry.failed += u64::from(ending.failed);
        entry.instructions += ending.executed + ending.page_instructions;
        entry.stable_pages_written += ending.stable_pages_written;
        entry.calls.calls += 1;
        merge(&mut entry.calls, &recorder.nodes, 0, &name);
        if ending.page_instructions > 0 {
            let node = entry.calls.callees.entry(PAGES_CHANGED.to_owned()).or_default();
            node.calls += 1;
            node.own_instructions += ending.page_instructions;
        }
        let bulk = recorder.bulk_reads.iter().flat_map(|(first, last)| *first..=*last);
        let read: std::collections::BTreeSet<u64> = ending.pages_read.into_iter().chain(bulk).collect();
        for page in read {
            *entry.heap_pages_read.entry(page).or_default() += 1;
        }
        for page in ending.pages_written {
            *entry.heap_pages_written.entry(page.0).or_default() += 1;
        }
    }
}

/// Recursion is bounded by [`DEPTH_MAX`].
fn merge(into: &mut CallNode, nodes: &[RecordedNode], node: usize, name: &impl Fn(u32) -> String) {
    into.own_instructions += nodes[node].own_instructions;
    for (function, callee) in &nodes[node].callees {
        let target = into.callees.entry(name(*function)).or_default();
        target.calls += nodes[*callee].calls;
        merge(target, nodes, *callee, name);
    }
}

fn entry_name(entry_point: &EntryPoint) -> String {
    match entry_point {
        EntryPoint::Start => "start".to_owned(),
        EntryPoint::Init(_) => "canister_init".to_owned(),
        EntryPoint::PreUpgrade => "canister_pre_upgrade".to_owned(),
        EntryPoint::PostUpgrade(_) => "canister_post_upgrade".to_owned(),
        EntryPoint::InspectMessage { .. } => "canister_inspect_message".to_owned(),
        EntryPoint::Heartbeat => "canister_heartbeat".to_owned(),
        EntryPoint::GlobalTimer => "canister_global_timer".to_owned(),
        EntryPoint::OnLowWasmMemory => "canister_on_low_wasm_memory".to_owned(),
        EntryPoint::Update { method, .. } => format!("canister_update {method}"),
        EntryPoint::ReplicatedQuery { method, .. } | EntryPoint::Query { method, .. } => {
            format!("canister_query {method}")
        }
        EntryPoint::CompositeQuery { method, .. } => format!("canister_composite_query {method}"),
        EntryPoint::Callback { .. } => "callback".to_owned(),
        EntryPoint::Cleanup { .. } => "cleanup callback".to_owned(),
    }
}
