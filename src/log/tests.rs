//! The log as a whole, on real files.

mod damage;
mod encryption;
mod eras;
mod life;
mod marks;
mod model;
mod retention;
mod starts;
