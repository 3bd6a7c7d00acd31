//! What the process says to whoever started it, on standard error.

/// Writes a line to standard error, as `eprintln!` does, but without its panic when nobody reads there any more: a closed
/// terminal or pipe must not take the streams in flight with it.
#[macro_export]
macro_rules! tell {
    ($($words:tt)*) => {{
        use std::io::Write as _;
        // There is nowhere left to complain to.
        let _ = ::std::writeln!(::std::io::stderr().lock(), $($words)*);
    }};
}
