//! The machine besides its kernel's network tables: files, sockets, processes.

pub(crate) mod claimers;
pub(crate) mod heap;
pub mod libvirt_xml;
pub(crate) mod lock;
pub mod log;
pub(crate) mod network_managers;
pub(crate) mod process;
pub(crate) mod program;
pub mod qemu;
mod unix_sockets;
pub(crate) mod wait;
