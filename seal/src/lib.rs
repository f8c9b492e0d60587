//! Secrets at rest: AES-256-GCM envelopes, and the keyring that opens them.
//!
//! [`Keyring::seal`] encrypts a value with a key of its own, and that key with the keyring's current key. Both are bound to a
//! [`Place`]: a ciphertext that was moved to another table, column or row does not open. [`Keyring::rewrap`] changes the key
//! around the value's key, and leaves the value's ciphertext as it is.
//!
//! [`Keys`] is the keyring of a running process. One that comes from a file is read again when the file changes, so that a
//! rotation needs no restart.

mod envelope;
mod error;
mod file;
mod key;
mod keyring;

pub use envelope::{KEY_ID_LENGTH, KEY_ID_OFFSET, OVERHEAD, Place, VERSION, key_id_of};
pub use error::SealError;
pub use file::{Keys, create_file, promote_new_key, read_file};
pub use key::KeyId;
pub use keyring::Keyring;
