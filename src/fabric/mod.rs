//! The fabric: what FRR and the switches are told, and what FRR says.

pub mod answers;
pub mod drain;
pub mod render;
pub mod running_config;
pub mod vtysh;
