//! What people look at: the playground, one embedded page.
