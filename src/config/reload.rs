//! What a reload cannot change.

use super::Config;

/// The settings that differ and take effect at the next start alone, because sockets, threads and files were made by them.
pub(crate) fn describe_unreloadable(old: &Config, new: &Config) -> Vec<String> {
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
    compare(old.data_dir != new.data_dir, "data_dir".to_owned());
    compare(old.streams.fsync != new.streams.fsync, "[streams] fsync".to_owned());
    compare(old.streams.redis != new.streams.redis, "[streams] redis".to_owned());
    compare(old.access_log != new.access_log, "access_log".to_owned());
    settings
}

/// Puts back into `new` what the process goes on with, so that the settings in force never tell of a listener that is not
/// there. What protects a listener that stays cannot be taken away from it: that is refused.
pub(crate) fn keep_unreloadable(old: &Config, new: &mut Config) -> Result<(), String> {
    let is_reachable = !old.listen.ip().is_loopback();
    if is_reachable && new.keys.is_empty() && !new.open {
        return Err(format!(
            "{} is listened on until the next start, and can be reached from other machines: it needs its [[key]] entries, or open = true",
            old.listen
        ));
    }
    if let Some(address) = old.admin.filter(|address| !address.ip().is_loopback())
        && new.admin_token.is_none()
    {
        return Err(format!(
            "metrics are served on {address} until the next start, and can be reached from other machines: they need their admin_token"
        ));
    }
    new.admin_by_default = old.admin_by_default;
    (new.listen, new.admin, new.workers) = (old.listen, old.admin, old.workers);
    (new.data_dir, new.streams.fsync) = (old.data_dir.clone(), old.streams.fsync);
    new.streams.redis = old.streams.redis.clone();
    new.access_log = old.access_log.clone();
    Ok(())
}
