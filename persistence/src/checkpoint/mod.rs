//! Checkpoints: durable versions of the replicated state.

pub(crate) mod stored;
