//! Golden cases on disk: tests/golden/KIND/CASE/ holds files, and `like` may name another case of the kind, whose files
//! it takes where it has none of its own. That one may be like a third.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

const GOLDEN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden");

/// One case, with what it inherits.
pub struct Case {
    /// Its own folder, then those of the cases that it is like, nearest first.
    folders: Vec<PathBuf>,
}

impl Case {
    pub fn kinds() -> Vec<String> {
        names(Path::new(GOLDEN))
    }

    /// Every case of a kind, by name.
    pub fn all(kind: &str) -> Vec<Self> {
        let root = Path::new(GOLDEN).join(kind);
        let names = names(&root);
        assert!(!names.is_empty(), "no cases in {}", root.display());
        let like = |name: &str| {
            assert!(root.join(name).is_dir(), "{}: there is no case {name}", root.display());
            std::fs::read_to_string(root.join(name).join("like")).ok()
        };
        let open = |name: &String| match chain(name, like) {
            Ok(chain) => Self { folders: chain.iter().map(|name| root.join(name)).collect() },
            Err(circle) => panic!("{}: {circle}", root.display()),
        };
        names.iter().map(open).collect()
    }

    pub fn folder(&self) -> &Path {
        &self.folders[0]
    }

    pub fn name(&self) -> String {
        name(self.folder())
    }

    /// The files that it does not inherit, also those in its folders.
    pub fn own_files(&self) -> Vec<PathBuf> {
        let (folders, mut files): (Vec<_>, Vec<_>) = entries(self.folder()).into_iter().partition(|path| path.is_dir());
        files.extend(folders.iter().flat_map(|folder| entries(folder)));
        files
    }

    /// The case that this one is like.
    pub fn like(&self) -> Option<Self> {
        (self.folders.len() > 1).then(|| Self { folders: self.folders[1..].to_vec() })
    }

    /// Its own file, or the nearest inherited one.
    pub fn read(&self, file: &str) -> Option<String> {
        self.folders.iter().find_map(|folder| std::fs::read_to_string(folder.join(file)).ok())
    }

    /// A folder's files by name, each its own or the nearest inherited one; `None` if there is no such folder.
    pub fn read_all(&self, folder: &str) -> Option<BTreeMap<String, String>> {
        let mut files = BTreeMap::new();
        let mut found = false;
        for folder in self.folders.iter().rev().map(|own| own.join(folder)).filter(|folder| folder.is_dir()) {
            found = true;
            files.extend(entries(&folder).iter().map(|file| (name(file), std::fs::read_to_string(file).unwrap())));
        }
        found.then_some(files)
    }

    /// Writes what is expected now. What it would inherit is not written again.
    pub fn update(&self, expected: &str) {
        let own = self.folder().join("expected");
        if self.like().and_then(|like| like.read("expected")).as_deref() == Some(expected) {
            let _ = std::fs::remove_file(own);
        } else {
            std::fs::write(own, expected).unwrap();
        }
    }
}

/// What a folder holds, sorted.
fn entries(folder: &Path) -> Vec<PathBuf> {
    let mut entries: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    entries.sort();
    entries
}

fn name(path: &Path) -> String {
    path.file_name().unwrap().to_str().unwrap().to_owned()
}

fn names(folder: &Path) -> Vec<String> {
    entries(folder).iter().map(|path| name(path)).collect()
}

/// A case's name and the names of those that it is like, nearest first; `like` reads one's file of that name.
pub fn chain(name: &str, like: impl Fn(&str) -> Option<String>) -> Result<Vec<String>, String> {
    let mut chain = vec![name.to_owned()];
    while let Some(next) = like(&chain[chain.len() - 1]) {
        let next = next.trim().to_owned();
        let is_circle = chain.contains(&next);
        chain.push(next);
        if is_circle {
            return Err(format!("a circle: {}", chain.join(" is like ")));
        }
    }
    Ok(chain)
}
