//! Stores that are damaged in every place there is: what `verify` says of them, and what `repair`
//! makes of them.

mod compacted;
mod keys;
mod made;
mod repair;
mod verify;
