//! x
use crate::shell::Result; #[derive(clap::Args)] pub struct Options {} pub fn run(_: &Options) -> Result<()> { Err("x".into()) }
