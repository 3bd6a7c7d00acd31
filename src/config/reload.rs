//! What a reload cannot change.

use super::Config;

/// The settings that differ and take effect at the next start alone, because sockets, threads and files were made by them.
pub fn describe_unreloadable(old: &Config, new: &Config) -> Vec<String> {
    let mut settings = Vec::new();
    let mut compare = |differs: bool, what: String| {
        if differs {
            settings.push(what);
        }
    };
    compare(old.listen != new.listen, format!("listen = \"{}\"", new.listen));
    let admin = new.admin.map_or("off".to_owned(), |address| address.to_string());
    compare(old.admin != new.admin, format!("admin = \"{admin}\""));
    compare(old.workers != new.workers, format!("workers = {}", new.workers));
    compare(old.access_log != new.access_log, "access_log".to_owned());
    settings
}
