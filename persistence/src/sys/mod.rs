//! All `unsafe` of the crate: the frame arena, file mappings, and the few system calls that std has no name for.

pub(crate) mod files;
pub(crate) mod frame;
pub(crate) mod mapping;
pub(crate) mod thread;
