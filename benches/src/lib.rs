//! How fast keyferry is, beside a bare proxy of the same parts, its peers, and no proxy at all.
//!
//! One program plays every part in processes of its own: the [`upstream`], the [`yardstick`], the [`load`], and the one that starts them
//! all and [`compare`]s. What a proxy costs is read from the kernel's books ([`process`]), not from what is left of the machine.

pub mod authority;
pub mod compare;
pub mod load;
pub mod process;
pub mod table;
pub mod tls;
pub mod upstream;
pub mod yardstick;
