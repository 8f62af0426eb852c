//! The places where a crash leaves something that recovery has to tell apart, by name.

/// Where the process may end between two steps that together make something durable. `FORMAT.md` says what recovery finds
/// after each; tests stop there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum CrashPoint {
    /// A segment of the log has its header, and its name may be lost.
    SegmentHeaderSynced,
    /// Pieces of a large group are written, its first block is not.
    GroupWrittenAhead,
    /// A group is written and not synced.
    GroupWritten,
    /// A group is synced, and nobody knows yet.
    GroupSynced,
    /// A segment that is needed no more lost its name, and may have it again.
    SegmentRetired,
    /// The files of a new generation of checkpoints are there and empty.
    GenerationCreated,
    /// Pages and records of a checkpoint are written and not synced.
    PagesWritten,
    /// The pages are synced, the records may not be.
    PagesSynced,
    /// Pages and records are synced, and the superblock still names the last checkpoint.
    BeforeSwitch,
    /// The superblock is written and not synced.
    SuperblockWritten,
    /// The new checkpoint is the one that opens; what it leaves behind is there still.
    AfterSwitch,
    /// Files of a generation that no superblock names were removed, and their names may come back.
    GenerationRemoved,
}

impl CrashPoint {
    /// All of them, as a batch and then a checkpoint come by them.
    pub const ALL: [Self; 12] = [
        Self::SegmentHeaderSynced,
        Self::GroupWrittenAhead,
        Self::GroupWritten,
        Self::GroupSynced,
        Self::SegmentRetired,
        Self::GenerationCreated,
        Self::PagesWritten,
        Self::PagesSynced,
        Self::BeforeSwitch,
        Self::SuperblockWritten,
        Self::AfterSwitch,
        Self::GenerationRemoved,
    ];

    /// Its name in `FORMAT.md`.
    pub fn name(self) -> &'static str {
        match self {
            Self::SegmentHeaderSynced => "segment_header_synced",
            Self::GroupWrittenAhead => "group_written_ahead",
            Self::GroupWritten => "group_written",
            Self::GroupSynced => "group_synced",
            Self::SegmentRetired => "segment_retired",
            Self::GenerationCreated => "generation_created",
            Self::PagesWritten => "pages_written",
            Self::PagesSynced => "pages_synced",
            Self::BeforeSwitch => "before_switch",
            Self::SuperblockWritten => "superblock_written",
            Self::AfterSwitch => "after_switch",
            Self::GenerationRemoved => "generation_removed",
        }
    }
}
