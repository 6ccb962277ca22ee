//! One guest and its tap: what exists, what is allowed, and what to do. Pure.

pub(crate) mod bpf;
pub(crate) mod cloud_init;
pub(crate) mod configured;
pub mod guard;
pub(crate) mod libvirt_interface;
pub(crate) mod link;
pub(crate) mod neighbour;
pub mod plan;
pub mod policy;
pub(crate) mod refusal;
pub mod repairs;
pub(crate) mod route;
pub mod snapshot;
pub mod state;
pub(crate) mod view;
