//! A profile for the Firefox profiler (profiler.firefox.com, or `samply load`): a thread per canister, a sample per path
//! of calls, weighed by its instructions. Its clock is instructions, a nanosecond each.

use super::{OUTSIDE, paths, readable};
use crate::BenchError;
use fxprof_processed_profile::{
    CategoryHandle, CpuDelta, Frame, FrameFlags, FrameInfo, Profile as FirefoxProfile, ReferenceTimestamp,
    SamplingInterval, ThreadHandle, Timestamp, WeightType,
};
use replicore_engine::profile::Profile;
use replicore_types::CanisterId;
use std::collections::BTreeMap;
use std::time::SystemTime;

/// Converts it.
///
/// # Errors
/// It has no JSON form, which cannot happen.
pub fn firefox(profile: &Profile) -> Result<String, BenchError> {
    // A fixed date: the same profile gives the same file.
    let mut converted = FirefoxProfile::new(
        "replicore",
        ReferenceTimestamp::from_system_time(SystemTime::UNIX_EPOCH),
        SamplingInterval::from_nanos(1_000),
    );
    let start = Timestamp::from_nanos_since_reference(0);
    let process = converted.add_process("canisters, clocked by instructions", 1, start);
    let mut threads: BTreeMap<CanisterId, Thread> = BTreeMap::new();
    for ((canister, entry_name), entry) in &profile.entries {
        let number = threads.len() as u32 + 1;
        let thread = threads.entry(*canister).or_insert_with(|| {
            let handle = converted.add_thread(process, number, start, false);
            converted.set_thread_name(handle, &canister.to_string());
            converted.set_thread_samples_weight_type(handle, WeightType::Samples);
            Thread { handle, clock: 0 }
        });
        if entry.calls.own_instructions > 0 {
            thread.add(&mut converted, &[entry_name, OUTSIDE], entry.calls.own_instructions);
        }
        paths(entry, &mut |path, node| {
            if node.own_instructions > 0 {
                let mut stack = vec![entry_name.as_str()];
                stack.extend_from_slice(path);
                thread.add(&mut converted, &stack, node.own_instructions);
            }
        });
    }
    serde_json::to_string(&converted).map_err(BenchError::new)
}

struct Thread {
    handle: ThreadHandle,
    /// Instructions so far.
    clock: u64,
}

impl Thread {
    fn add(&mut self, profile: &mut FirefoxProfile, stack: &[&str], mut instructions: u64) {
        let frames: Vec<_> = stack
            .iter()
            .map(|name| FrameInfo {
                frame: Frame::Label(profile.intern_string(&readable(name))),
                category_pair: CategoryHandle::OTHER.into(),
                flags: FrameFlags::empty(),
            })
            .collect();
        let stack = profile.intern_stack_frames(self.handle, frames.into_iter());
        // A weight has 32 bits.
        while instructions > 0 {
            let weight = instructions.min(i32::MAX as u64);
            let at = Timestamp::from_nanos_since_reference(self.clock);
            profile.add_sample(self.handle, at, stack, CpuDelta::from_nanos(weight), weight as i32);
            self.clock += weight;
            instructions -= weight;
        }
    }
}
