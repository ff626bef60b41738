//! The golden messages of this implementation, for `proto/vectors/rust.json`:
//!
//!     cargo run -p cidstore-proto --example vectors > proto/vectors/rust.json

#[path = "../tests/wire/cases.rs"]
mod cases;
#[path = "../tests/wire/meaning.rs"]
#[allow(dead_code)]
mod meaning;

fn main() {
    print!("{}", cases::file());
}
