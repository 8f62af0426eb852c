//! The machine code of canisters as a jitdump, with which `perf inject --jit` makes recorded samples tell functions apart
//! and shows their instructions: `/tmp/jit-PID.dump`. The format is that of `jitdump-specification.txt` in the Linux kernel's
//! perf tool, version 1.
//!
//! Beside the names of the perf map it holds the code itself and when it came, so that code which took the place of other
//! code is not mistaken for it.

use super::Compiled;
use super::perf_map::label;
use memmap2::{Mmap, MmapOptions};
use parking_lot::Mutex;
use std::fs::File;
use std::io::{self, Write};

/// `JiTD`, as a number of this machine's byte order.
const MAGIC: u32 = 0x4A69_5444;
const VERSION: u32 = 1;
const HEADER_BYTES: u32 = 40;
/// Record of code that came.
const CODE_LOAD: u32 = 0;
/// Bytes of such a record before the name.
const CODE_LOAD_BYTES: usize = 56;
/// ELF's number of this machine.
const MACHINE: u32 = if cfg!(target_arch = "aarch64") { 183 } else { 62 };

/// The dump of this process.
pub(super) struct JitDump {
    file: Mutex<Dump>,
    /// `perf record` sees executable mappings, and finds the dump by this one.
    _marker: Mmap,
}

struct Dump {
    file: File,
    /// Number of the next function.
    next: u64,
}

impl JitDump {
    /// Begins it.
    ///
    /// # Errors
    /// The file exists: an earlier process with this id left it, or another engine of this one writes it.
    pub fn create() -> io::Result<Self> {
        // A link that somebody put there is not followed.
        let path = format!("/tmp/jit-{}.dump", std::process::id());
        let mut file = File::options().read(true).write(true).create_new(true).open(path)?;
        let mut header = Vec::with_capacity(HEADER_BYTES as usize);
        for word in [MAGIC, VERSION, HEADER_BYTES, MACHINE, 0, std::process::id()] {
            header.extend(word.to_ne_bytes());
        }
        header.extend(monotonic_nanos().to_ne_bytes());
        // Flags: none.
        header.extend(0_u64.to_ne_bytes());
        file.write_all(&header)?;
        // SAFETY: nothing ever reads the mapping, so that what the file is does not matter; it is private, hence writes
        // to the file are none to memory that anybody refers to.
        let marker = unsafe { MmapOptions::new().len(HEADER_BYTES as usize).map_exec(&file)? };
        Ok(Self {
            file: Mutex::new(Dump { file, next: 0 }),
            _marker: marker,
        })
    }

    /// Adds the functions of a module. What cannot be written is left out: it costs names, nothing else.
    pub fn add(&self, compiled: &Compiled) {
        let module = compiled.instance_pre.module();
        let text = module.text();
        let mut dump = self.file.lock();
        let mut records = Vec::new();
        for function in module.functions() {
            let Some(code) = text.get(function.offset..function.offset + function.len) else {
                continue;
            };
            let index = dump.next;
            dump.next += 1;
            let name = label(compiled, function.index.as_u32());
            records.extend(record(
                &name,
                code,
                text.as_ptr() as u64 + function.offset as u64,
                index,
            ));
        }
        let _lost = dump.file.write_all(&records);
    }
}

/// Code that came now.
fn record(name: &str, code: &[u8], address: u64, index: u64) -> Vec<u8> {
    let bytes = CODE_LOAD_BYTES + name.len() + 1 + code.len();
    let mut record = Vec::with_capacity(bytes);
    record.extend(CODE_LOAD.to_ne_bytes());
    record.extend((bytes as u32).to_ne_bytes());
    record.extend(monotonic_nanos().to_ne_bytes());
    let process = std::process::id();
    record.extend(process.to_ne_bytes());
    // The thread: whichever compiled it does not matter to who reads it.
    record.extend(process.to_ne_bytes());
    for number in [address, address, code.len() as u64, index] {
        record.extend(number.to_ne_bytes());
    }
    record.extend(name.as_bytes().iter().map(|byte| if *byte == 0 { b' ' } else { *byte }));
    record.push(0);
    record.extend(code);
    record
}

/// The clock that `perf record --clockid mono` puts on samples. It goes into the dump and nowhere else.
fn monotonic_nanos() -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the pointer is to a live timespec of ours, which the call fills; the clock exists on every Linux, and where
    // the call fails the zeros stay.
    let _zeros_where_it_fails = unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut time) };
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}
