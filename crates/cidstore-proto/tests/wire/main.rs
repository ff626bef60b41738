//! The protocol from the outside.

mod common;
mod requests;
mod round_trip;
