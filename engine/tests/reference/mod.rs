//! A reference interpreter: slow, small, and written from the published rules alone, so that it can be wrong only in
//! other ways than the engine. It executes the *original* module, operator by operator, and adds up what each costs.
//!
//! ```text
//! engine       rewrites functions, charges a straight line at its start, compiles
//! reference    walks operators, charges each as it runs, and what is left of open lines where somebody looks
//! ```
//! It knows everything that modules without vectors, references and tail calls can do, and of the System API
//! `performance_counter` and `msg_reply`. Whether its *results* are right is checked against an established
//! interpreter, its counts against the engine.

pub mod against_engine;
mod machine;
mod module;
mod numeric;
mod published_costs;

pub use machine::{Ending, Machine};
pub use module::Module;
