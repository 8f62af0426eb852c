//! What the standard library has no name for about threads.

/// How far a thread in the background stands back, on the scale of nice(2): a third of the time of another where there is
/// not enough for both, so that a checkpoint still comes to its end on a busy machine.
const BACKGROUND_NICE: i32 = 5;

/// Lets other threads go first from now on, where there are more of them than processors: for the calling thread and
/// those that it starts. Writing a checkpoint hashes on two threads, and a round that wakes between them would wait for the
/// end of a time slice.
pub fn work_in_background() {
    // A wish that may be refused; nothing but time depends on it. Elsewhere than on Linux it would be the whole process.
    #[cfg(target_os = "linux")]
    // SAFETY: a plain system call, about the calling thread.
    unsafe {
        libc::setpriority(libc::PRIO_PROCESS, 0, BACKGROUND_NICE);
    }
}
