//! JSON that passes in pieces, read as far as something depends on it: keys sought as bytes, values passed over, strings and numbers
//! taken in, the members of the document itself.

pub(crate) mod key;
pub(crate) mod members;
pub(crate) mod scalar;
pub(crate) mod skip;
pub(crate) mod text;
