//! Compaction: few files, little that is dead, in stores larger than one merge too; and what it may not
//! leave out.

mod bench;
mod course;
mod damage;
mod dead;
mod room;
