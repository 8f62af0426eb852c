//! Rounds with a scriptable engine: the same on any number of cores, exact in cycles, and true to the rules of calls.

mod calls;
mod fairness;
mod generated;
mod installs;
mod management_waves;
mod outside;
mod queries;
mod rounds;
mod streams;
mod stub;
mod world;
