//! Where a message stands: the modes in which the System API knows an execution, and sets of them.

use crate::EntryPoint;

/// The mode of an execution, which decides what functions it may call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Mode {
    /// The Wasm start function.
    Start,
    /// `canister_init`
    Init,
    /// `canister_pre_upgrade`
    PreUpgrade,
    /// `canister_post_upgrade`
    PostUpgrade,
    /// `canister_update`
    Update,
    /// A query method called as an update.
    ReplicatedQuery,
    /// A query method.
    Query,
    /// A composite query method.
    CompositeQuery,
    /// Reply callback.
    ReplyCallback,
    /// Reject callback.
    RejectCallback,
    /// Reply callback of a composite query.
    CompositeReplyCallback,
    /// Reject callback of a composite query.
    CompositeRejectCallback,
    /// Cleanup callback.
    Cleanup,
    /// Cleanup callback of a composite query.
    CompositeCleanup,
    /// `canister_inspect_message`
    InspectMessage,
    /// Heartbeat, global timer, low-memory hook.
    SystemTask,
}

impl Mode {
    /// Every mode.
    pub const ALL: [Mode; 16] = [
        Mode::Start,
        Mode::Init,
        Mode::PreUpgrade,
        Mode::PostUpgrade,
        Mode::Update,
        Mode::ReplicatedQuery,
        Mode::Query,
        Mode::CompositeQuery,
        Mode::ReplyCallback,
        Mode::RejectCallback,
        Mode::CompositeReplyCallback,
        Mode::CompositeRejectCallback,
        Mode::Cleanup,
        Mode::CompositeCleanup,
        Mode::InspectMessage,
        Mode::SystemTask,
    ];

    /// The mode of an entry point.
    pub fn of(entry_point: &EntryPoint) -> Mode {
        use crate::ResponseView;
        match entry_point {
            EntryPoint::Start => Mode::Start,
            EntryPoint::Init(_) => Mode::Init,
            EntryPoint::PreUpgrade => Mode::PreUpgrade,
            EntryPoint::PostUpgrade(_) => Mode::PostUpgrade,
            EntryPoint::Update { .. } => Mode::Update,
            EntryPoint::ReplicatedQuery { .. } => Mode::ReplicatedQuery,
            EntryPoint::Query { .. } => Mode::Query,
            EntryPoint::CompositeQuery { .. } => Mode::CompositeQuery,
            EntryPoint::Callback {
                response, composite, ..
            } => match (response, composite) {
                (ResponseView::Reply(_), false) => Mode::ReplyCallback,
                (ResponseView::Reject(_), false) => Mode::RejectCallback,
                (ResponseView::Reply(_), true) => Mode::CompositeReplyCallback,
                (ResponseView::Reject(_), true) => Mode::CompositeRejectCallback,
            },
            EntryPoint::Cleanup { composite: false, .. } => Mode::Cleanup,
            EntryPoint::Cleanup { composite: true, .. } => Mode::CompositeCleanup,
            EntryPoint::InspectMessage { .. } => Mode::InspectMessage,
            EntryPoint::Heartbeat | EntryPoint::GlobalTimer | EntryPoint::OnLowWasmMemory => Mode::SystemTask,
        }
    }

    /// The words of error texts: `... cannot be executed in <name> mode`.
    pub fn name(self, entry_point: &EntryPoint) -> &'static str {
        match self {
            Mode::Start => "start",
            Mode::Init | Mode::PostUpgrade => "init",
            Mode::PreUpgrade => "pre upgrade",
            Mode::Update => "update",
            Mode::ReplicatedQuery => "replicated query",
            Mode::Query => "non replicated query",
            Mode::CompositeQuery => "composite query",
            Mode::ReplyCallback => "reply callback",
            Mode::RejectCallback => "reject callback",
            Mode::CompositeReplyCallback => "composite reply callback",
            Mode::CompositeRejectCallback => "composite reject callback",
            Mode::Cleanup => "cleanup",
            Mode::CompositeCleanup => "composite cleanup",
            Mode::InspectMessage => "inspect message",
            Mode::SystemTask => match entry_point {
                EntryPoint::GlobalTimer => "global timer",
                EntryPoint::OnLowWasmMemory => "on low Wasm memory",
                _ => "heartbeat",
            },
        }
    }

    /// True where all nodes of the subnet execute the message.
    pub fn is_replicated(self) -> bool {
        !matches!(
            self,
            Mode::Query
                | Mode::CompositeQuery
                | Mode::CompositeReplyCallback
                | Mode::CompositeRejectCallback
                | Mode::CompositeCleanup
                | Mode::InspectMessage
        )
    }

    /// True where a message that ends well keeps what it wrote. Composite queries keep their memory for their callbacks;
    /// whoever executes them throws the whole state away at the end.
    pub fn keeps_state(self) -> bool {
        !matches!(self, Mode::ReplicatedQuery | Mode::Query | Mode::InspectMessage)
    }

    /// True where growth takes subnet memory and reserves cycles for it: queries throw it away, and installation is
    /// checked as a whole at its end.
    pub fn takes_subnet_memory(self) -> bool {
        matches!(
            self,
            Mode::Update | Mode::SystemTask | Mode::ReplyCallback | Mode::RejectCallback | Mode::Cleanup
        )
    }

    /// True where the freezing threshold bounds memory growth; responses and queries are exempt, and installation is
    /// checked as a whole at its end.
    pub fn checks_freezing_threshold(self) -> bool {
        matches!(self, Mode::Update | Mode::SystemTask)
    }
}

/// A set of modes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Contexts(u16);

impl Contexts {
    /// Every mode, `start` too.
    pub const ALL: Contexts = Contexts(u16::MAX);
    /// Every mode but `start`.
    pub const NOT_START: Contexts = Contexts::ALL.without(&[Mode::Start]);

    /// These modes.
    pub const fn of(modes: &[Mode]) -> Contexts {
        let mut bits = 0;
        let mut position = 0;
        while position < modes.len() {
            bits |= 1 << modes[position] as u16;
            position += 1;
        }
        Contexts(bits)
    }

    /// The set without these modes.
    pub const fn without(self, modes: &[Mode]) -> Contexts {
        Contexts(self.0 & !Contexts::of(modes).0)
    }

    /// True for a mode of the set.
    pub const fn contains(self, mode: Mode) -> bool {
        self.0 & (1 << mode as u16) != 0
    }
}
