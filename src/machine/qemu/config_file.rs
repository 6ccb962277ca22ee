//! `-readconfig FILE`: the same options as on the command line, in sections (util/qemu-config.c, qemu_config_foreach).
//!
//! ```text
//! [device "net0"]
//!   driver = "virtio-net-pci"
//!   mac = "02:42:0a:00:00:0a"
//! ```

use std::fs;
use std::io::Read;

use anyhow::{Result, ensure};

use super::given::Given;

/// Far above any real file; a text without end must not fill the memory.
const LIMIT: u64 = 1 << 20;

/// The sections of a file. QEMU's script runs in QEMU's working folder, so that the name means the same.
///
/// # Errors
/// The file cannot be read, or not a second time: a pipe.
pub fn read(name: &str) -> Result<Vec<Given>> {
    ensure!(fs::metadata(name)?.is_file(), "it is not a file that can be read twice");
    let mut text = Vec::new();
    fs::File::open(name).and_then(|file| file.take(LIMIT).read_to_end(&mut text))?;
    Ok(sections(&String::from_utf8_lossy(&text)))
}

fn sections(text: &str) -> Vec<Given> {
    let mut found: Vec<Given> = Vec::new();
    for line in text.lines().map(str::trim).filter(|line| !line.starts_with('#')) {
        if let Some(head) = line.strip_prefix('[') {
            let head = head.trim_end_matches(']');
            let (option, id) = head.split_once(char::is_whitespace).unwrap_or((head, ""));
            let id = Some(id.trim().trim_matches('"')).filter(|id| !id.is_empty());
            let properties = id.map(|id| ("id".to_owned(), id.to_owned())).into_iter().collect();
            found.push(Given { option: option.to_owned(), properties });
        } else if let (Some(section), Some((key, value))) = (found.last_mut(), line.split_once('=')) {
            section.properties.push((key.trim().to_owned(), value.trim().trim_matches('"').to_owned()));
        }
    }
    found
}
