//! One of QEMU's options.

/// An option, or a section of a configuration file, with the properties in it, in order.
pub struct Given {
    pub option: String,
    pub properties: Vec<(String, String)>,
}

impl Given {
    /// The last value of a key (qemu_opt_get).
    pub fn get(&self, key: &str) -> Option<&str> {
        self.properties.iter().rev().find(|(name, _)| name == key).map(|(_, value)| value.as_str())
    }

    /// QEMU runs no script for a tap that comes as a descriptor or from a helper, nor with script=no.
    pub fn runs_script(&self) -> bool {
        ["fd", "fds", "helper"].iter().all(|key| self.get(key).is_none())
            && !matches!(self.get("script"), Some("no" | ""))
    }
}
