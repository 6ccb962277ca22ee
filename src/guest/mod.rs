//! One guest and its tap: what is there, what is allowed, what to do. Pure.

pub mod libvirt_interface;
pub mod link;
pub mod plan;
pub mod policy;
pub mod refusal;
pub mod route;
pub mod snapshot;
pub mod state;
pub mod view;
