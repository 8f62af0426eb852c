/// For which kind of compiler code is instrumented. No result depends on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CodeStyle {
    /// As little code as possible, for a baseline compiler, whose time is the length of the code: the counter stays in
    /// its global, every store marks.
    Short,
    /// Code that an optimising compiler makes fast: the counter in a local, and what is done for tight loops.
    Fast,
}
