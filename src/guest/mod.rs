//! One guest and its tap: what is there, what is allowed, what to do. Pure.

pub mod libvirt_interface;
pub mod plan;
pub mod policy;
pub mod snapshot;
pub mod view;
