//! The end-to-end scenario through `ic-agent`, with every verification that the agent has switched on.
//!
//! `ic-agent-client URL NAME=MODULE...` prints a line per step, `ok ...` or `FAIL ...`, and asks whoever started it for
//! restarts: after `@restart` or `@kill MILLISECONDS` it reads the replica's new URL from standard input.

mod load;
mod scenario;
mod session;

use anyhow::{Context, Result};
use session::Session;
use std::process::ExitCode;

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    match run().await {
        Ok(0) => ExitCode::SUCCESS,
        Ok(failures) => {
            println!("{failures} steps failed");
            ExitCode::FAILURE
        }
        Err(error) => {
            println!("FAIL {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run() -> Result<usize> {
    let mut arguments = std::env::args().skip(1);
    let url = arguments.next().context("usage: ic-agent-client URL NAME=MODULE...")?;
    let modules: Vec<(String, Vec<u8>)> = arguments
        .map(|argument| {
            let (name, path) = argument.split_once('=').context("a module is NAME=PATH")?;
            Ok((name.to_owned(), std::fs::read(path).with_context(|| path.to_owned())?))
        })
        .collect::<Result<_>>()?;

    let mut session = Session::connect(url).await?;
    scenario::identities(&mut session, &modules).await;
    scenario::every_toolchain(&mut session, &modules).await;
    scenario::lifecycle(&mut session, &modules).await;
    scenario::restart(&mut session, &modules).await;
    load::kill_under_load(&mut session, &modules).await;
    Ok(session.failures)
}
