//! doctor's judges, one subject a file: pure, from facts to rows. A check that cannot be made is never `ok`.

pub mod announced;
pub mod bridges;
pub mod facts;
pub mod frr;
pub mod guests;
pub mod hooks;
pub mod machine;
pub mod text;
pub mod uplinks;
