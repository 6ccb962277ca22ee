//! The fabric: what FRR and the switches are configured with, and what FRR answers.

pub mod answers;
pub(crate) mod drain;
pub(crate) mod render;
pub(crate) mod running_config;
pub mod uplinks;
pub(crate) mod vtysh;
