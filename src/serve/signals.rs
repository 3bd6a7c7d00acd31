//! The signals that a process obeys while it serves, and while it drains.

use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::runtime::{Builder, Runtime};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::oneshot;

use super::successor::{Estate, NoSuccessor};
use super::{notify, pause};
use crate::config::{self, Config};
use crate::relay::context::Shared;
use crate::relay::settings::Settings;
use crate::telemetry::LogWriter;
use crate::tell;

/// Why it ends.
pub(crate) enum End {
    /// It was told to.
    Stopped,
    /// This process serves in its place.
    Succeeded(u32),
}

/// The signals that would kill a process which has only begun: they are caught from here on, and obeyed once it serves. SIGTERM and
/// SIGINT still end it at once.
pub(crate) struct EarlySignals {
    runtime: Runtime,
    hangup: Signal,
    succeed: Signal,
}

impl EarlySignals {
    /// Catches them from now on.
    ///
    /// # Errors
    /// If the system refuses.
    pub(crate) fn catch() -> io::Result<EarlySignals> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let context = runtime.enter();
        let (hangup, succeed) = (signal(SignalKind::hangup())?, signal(SignalKind::user_defined2())?);
        drop(context);
        Ok(EarlySignals { runtime, hangup, succeed })
    }

    /// The runtime of the main thread, and all signals that are obeyed there.
    pub(crate) fn obey(self) -> io::Result<(Runtime, Signals)> {
        let EarlySignals { runtime, hangup, succeed } = self;
        let context = runtime.enter();
        let (terminate, interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        drop(context);
        Ok((runtime, Signals { terminate, interrupt, hangup, succeed }))
    }
}

/// The signals that are obeyed.
pub(crate) struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
    succeed: Signal,
}

impl Signals {
    /// Reloads as often as it is asked to, until asked to end, or another process has taken over.
    pub(crate) async fn until_end(
        &mut self,
        shared: &Shared,
        log: Option<&LogWriter>,
        estate: &Estate,
        reload: &impl Fn() -> Result<Config, String>,
    ) -> End {
        loop {
            tokio::select! {
                _ = self.terminate.recv() => return End::Stopped,
                _ = self.interrupt.recv() => return End::Stopped,
                _ = self.succeed.recv() => match pass_on(shared, estate).await {
                    Ok(pid) => return End::Succeeded(pid),
                    Err(error) => {
                        shared.registry.handovers_failed.inc();
                        tell!("sedge: not taken over, this process goes on: {error}");
                    }
                },
                _ = self.hangup.recv() => {
                    if let Some(log) = log {
                        log.reopen();
                    }
                    notify::tell(&notify::reloading());
                    take_up(shared, reload());
                    notify::tell(notify::READY);
                }
            }
        }
    }

    /// Lets `delay` pass. Says whether it did: a second signal ends it.
    pub(crate) async fn delay(&mut self, delay: Duration) -> bool {
        if delay.is_zero() {
            return true;
        }
        tokio::select! {
            _ = self.terminate.recv() => false,
            _ = self.interrupt.recv() => false,
            () = pause(delay) => true,
        }
    }

    /// Until all cores are done, or a second signal, or the time is over and a little more.
    pub(crate) async fn until_drained(&mut self, threads: Vec<JoinHandle<()>>, patience: Duration) {
        let (done, drained) = oneshot::channel();
        std::thread::spawn(move || {
            for thread in threads {
                let _ = thread.join();
            }
            let _ = done.send(());
        });
        // The cores end what is left by themselves at the limit; this is for one that cannot.
        let overdue = patience + Duration::from_secs(3);
        tokio::select! {
            _ = drained => {}
            _ = self.terminate.recv() => tell!("sedge: stopping at once"),
            _ = self.interrupt.recv() => tell!("sedge: stopping at once"),
            () = pause(overdue) => {}
        }
    }
}

/// Starts the next process, where that can be.
async fn pass_on(shared: &Shared, estate: &Estate) -> Result<u32, NoSuccessor> {
    match shared.streams.journal() {
        Some(_) => Err(NoSuccessor::StreamsOnDisk),
        None => estate.pass_on().await,
    }
}

/// Puts a configuration in force, if it is one.
fn take_up(shared: &Shared, config: Result<Config, String>) {
    let registry = &shared.registry;
    let settings = config.and_then(|mut config| {
        let old = &shared.settings.load().config;
        let later = config::describe_unreloadable(old, &config);
        config::keep_unreloadable(old, &mut config)?;
        let settings = Settings::new(config, registry, &shared.meters, &shared.healths);
        settings.map(|settings| (settings, later)).map_err(|error| error.to_string())
    });
    match settings {
        Ok((settings, later)) => {
            shared.streams.set_bounds(settings.config.streams.bounds.clone());
            shared.settings.store(Arc::new(settings));
            shared.healths.forget_unused();
            registry.reloads_ok.inc();
            tell!("sedge: configuration reloaded");
            for what in later {
                tell!("sedge: {what} takes effect at the next start");
            }
        }
        Err(error) => {
            registry.reloads_failed.inc();
            tell!("sedge: configuration not reloaded, the one before stays in force:\n{error}");
        }
    }
}
