//! tap32 turns each tap of a KVM host into one routed /32.
//!
//! Faces (`cli`, `qemu`, `libvirt` with `domain`) call the core (`config`, `addr`, `snapshot`, `view`, `policy`, `plan`, `host`,
//! `sysctl`, `render`), which is pure, and the shell (`kernel`, `arrival`, `lock`, `owner`, `frr`, `log`); the shell
//! never calls a face, the core calls nobody. `updown`, `reconcile`, `watch` (with `metrics`), `setup`, `doctor`, `uplink`
//! and `status` (with `explain`) join them.
//! A library only so that tests can reach the pure parts: no promises are made to other programs.

pub mod addr;
pub mod arrival;
pub mod cli;
pub mod config;
pub mod doctor;
pub mod domain;
pub mod explain;
pub mod frr;
pub mod host;
pub mod kernel;
pub mod libvirt;
pub mod lock;
pub mod log;
pub mod metrics;
pub mod owner;
pub mod plan;
pub mod policy;
pub mod qemu;
pub mod reconcile;
pub mod render;
pub mod report;
pub mod setup;
pub mod snapshot;
pub mod status;
pub mod sysctl;
pub mod updown;
pub mod uplink;
pub mod view;
pub mod watch;
