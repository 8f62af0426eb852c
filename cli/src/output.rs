//! Printing where the reader may be gone.
//!
//! The macros of the standard library panic when nobody reads the standard output any more, which `replicore load … | head`
//! makes happen. Those here stand in their place throughout the program: a command whose reader is gone unwinds, so that
//! replicas and files of it are let go of, and ends without a word and with the exit code that a shell gives a process that
//! `SIGPIPE` ended. `replicore start` serves without a reader and therefore writes by itself.

use std::io::{self, Write};
use std::panic::{self, AssertUnwindSafe};
use std::process::ExitCode;

/// 128 and the number of `SIGPIPE`.
const NOBODY_READS: u8 = 141;

/// What unwinds a command that cannot print.
struct Unwritable(io::Error);

/// Like the macro of the standard library, with [`crate::output`] for readers that are gone.
macro_rules! print {
    ($($words:tt)*) => { $crate::output::write(::std::format_args!($($words)*)) };
}

/// Like the macro of the standard library, with [`crate::output`] for readers that are gone.
macro_rules! println {
    () => { print!("\n") };
    ($($words:tt)*) => { print!("{}\n", ::std::format_args!($($words)*)) };
}

/// Like the macro of the standard library, but for readers that are gone: then there is nobody to tell.
macro_rules! eprintln {
    ($($words:tt)*) => { $crate::output::tell(::std::format_args!($($words)*)) };
}

/// Writes to the standard output; unwinds the command where that fails.
pub fn write(words: std::fmt::Arguments<'_>) {
    if let Err(error) = io::stdout().write_fmt(words) {
        panic::resume_unwind(Box::new(Unwritable(error)));
    }
}

/// Writes a line to the standard error, if it takes one.
pub fn tell(words: std::fmt::Arguments<'_>) {
    // Where the standard error is gone, nothing is left to say so on.
    let _unheard = writeln!(io::stderr(), "{words}");
}

/// Runs a command and gives its exit code, also where its output was not taken.
pub fn run(command: impl FnOnce() -> ExitCode) -> ExitCode {
    // Nothing that the command touched is used after it.
    match panic::catch_unwind(AssertUnwindSafe(command)) {
        Ok(code) => code,
        Err(cause) => match cause.downcast::<Unwritable>() {
            Ok(unwritable) if unwritable.0.kind() == io::ErrorKind::BrokenPipe => ExitCode::from(NOBODY_READS),
            Ok(unwritable) => {
                eprintln!("replicore: cannot write to the standard output: {}", unwritable.0);
                ExitCode::FAILURE
            }
            Err(panicked) => panic::resume_unwind(panicked),
        },
    }
}
