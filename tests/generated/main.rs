//! Man pages and completions are made from the table of verbs and from packaging/tap32.toml, and stand in
//! packaging/ as a package needs them. Here they are made again and compared.
//! `UPDATE=1 cargo test --test generated` writes what the sources say now; read the diff before you commit it.

mod completions;
mod example;
mod man;
mod sentences;

use std::path::{Path, PathBuf};

fn packaging(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging").join(file)
}

fn read(file: &str) -> String {
    let path = packaging(file);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn check(file: &str, made: &str) {
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(packaging(file), made).unwrap();
    }
    assert!(
        std::fs::read_to_string(packaging(file)).unwrap_or_default() == made,
        "packaging/{file} is not what its source says now: UPDATE=1 cargo test --test generated"
    );
}

#[test]
fn manual_of_the_program() {
    check("man/tap32.8", &man::program(&read("man/tap32.8.in")));
}

#[test]
fn manual_of_the_configuration() {
    check("man/tap32.toml.5", &man::configuration(&read("man/tap32.toml.5.in"), &read("tap32.toml")));
}

#[test]
fn completions_of_the_shells() {
    check("completions/tap32.bash", &completions::bash());
    check("completions/_tap32", &completions::zsh());
    check("completions/tap32.fish", &completions::fish());
}
