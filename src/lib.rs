//! tap32 turns each tap of a KVM host into one routed /32.
//!
//! Faces (`cli`, `qemu`, `libvirt`) call the core (`config`, `addr`, `policy`, `plan`, `host`, `sysctl`, `render`), which is pure, and the shell
//! (`kernel`, `arrival`, `owner`, `frr`, `log`); the shell never calls a face, the core calls nobody. `updown` (with `reconcile`),
//! `setup` and `status` join them.
//! A library only so that tests can reach the pure parts: no promises are made to other programs.

pub mod addr;
pub mod arrival;
pub mod cli;
pub mod config;
pub mod frr;
pub mod host;
pub mod kernel;
pub mod libvirt;
pub mod log;
pub mod owner;
pub mod plan;
pub mod policy;
pub mod qemu;
pub mod render;
pub mod setup;
pub mod snapshot;
pub mod status;
pub mod sysctl;
pub mod updown;
