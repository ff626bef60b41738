//! The protocol from the outside.

mod cases;
mod common;
mod document;
mod meaning;
mod requests;
mod round_trip;
mod seeds;
mod vectors;
