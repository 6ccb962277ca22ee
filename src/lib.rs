//! tap32 turns each tap of a KVM host into one routed /32.
//!
//! A library only so that tests can reach the pure parts: it promises nothing to other programs. tests/layout.rs says which
//! room may import which.

pub mod addr;
pub mod checks;
pub mod cli;
pub mod config;
pub mod fabric;
pub mod guest;
pub mod host;
mod kernel;
pub mod machine;
pub mod text;
pub mod verbs;
