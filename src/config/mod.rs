//! What a user may set, checked before anything starts. Errors name the file, the line and the key.
