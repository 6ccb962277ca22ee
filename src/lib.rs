//! tap32 turns each tap of a KVM host into one routed /32.
//!
//! A library only so that tests can reach the pure parts: no promises are made to other programs. The rooms, from the
//! bottom up; tests/layout.rs says who may import whom.

pub mod addr;
pub mod checks;
pub mod cli;
pub mod config;
pub mod fabric;
pub mod guest;
pub mod host;
pub mod kernel;
pub mod machine;
pub mod text;
pub mod verbs;
