//! The machine besides its kernel's network tables: files, sockets, processes.

pub mod libvirt_xml;
pub mod lock;
pub mod log;
pub mod network_managers;
pub mod process;
pub mod qemu;
