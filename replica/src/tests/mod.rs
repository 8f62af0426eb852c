//! The same batches, executed in different ways and through crashes, must come to the same state.

mod commit;
mod corruption;
mod determinism;
mod queries;
mod recovery;
mod script;
