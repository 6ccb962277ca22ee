//! The fabric: what FRR and the switches are configured with, and what FRR answers.

pub mod answers;
pub mod drain;
pub mod render;
pub mod running_config;
pub mod uplinks;
pub mod vtysh;
