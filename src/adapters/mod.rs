//! The ports, implemented on what is really there.

pub mod command;
pub mod prometheus;
