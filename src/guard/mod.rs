//! Who may come in: client keys.
