//! Whether a QEMU is just starting: then its command line says what it sets up.
//!
//! While it starts, QEMU makes its network backends before its guest's memory and processors, and before its monitors
//! listen (softmmu/vl.c, qemu_create_late_backends). A script that runs while the guest has either runs for a netdev_add.

use std::fs;

use anyhow::{Context, Result};

/// # Errors
/// The process is gone, or another user's.
pub fn is_starting(pid: u32) -> Result<bool> {
    let process = format!("/proc/{pid}");
    let folder = format!("{process}/fd");
    let mut has_machine = false;
    for entry in fs::read_dir(&folder).with_context(|| folder.clone())?.flatten() {
        // KVM's names of its descriptors (virt/kvm/kvm_main.c, create_vcpu_fd and kvm_dev_ioctl_create_vm).
        match fs::read_link(entry.path()).unwrap_or_default().to_str() {
            Some(link) if link.starts_with("anon_inode:kvm-vcpu") => return Ok(false),
            Some("anon_inode:kvm-vm") => has_machine = true,
            _ => {}
        }
    }
    Ok(has_machine || threads(&process)? <= 2 || !has_guest_memory(&process)?)
}

/// Without KVM each processor of a guest needs a thread, or all need one, beside the main one and RCU's.
fn threads(process: &str) -> Result<usize> {
    let folder = format!("{process}/task");
    Ok(fs::read_dir(&folder).context(folder)?.count())
}

/// QEMU keeps its guest's memory from its children (softmmu/physmem.c, ram_block_add: MADV_DONTFORK), and nothing else.
fn has_guest_memory(process: &str) -> Result<bool> {
    let file = format!("{process}/smaps");
    let maps = fs::read_to_string(&file).context(file)?;
    let mut flags = maps.lines().filter_map(|line| line.strip_prefix("VmFlags:"));
    Ok(flags.any(|flags| flags.split_whitespace().any(|flag| flag == "dc")))
}
