//! x
use crate::shell::Result; pub fn run() -> Result<()> { Err("x".into()) }
